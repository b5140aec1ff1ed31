//! Pages of figures: whatever stands there, what is passed on adds up, and is bounded.

use tidegate_proxy::fuzzing::figures;

/// Samples of one page, at most.
const MOST: u32 = 64;

/// A page, twice, and then the second half of it.
pub(crate) fn scrape(data: &[u8]) {
    let page = String::from_utf8_lossy(data);
    let half = page.ceil_char_boundary(page.len() / 2);
    let read = figures(&[&page, &page, &page[half..]], MOST);
    for figures in &read {
        let [kept, not_allowed, malformed, unusable, over] = figures.samples;
        assert!(kept + unusable <= u64::from(MOST), "{figures:?}");
        assert_eq!(not_allowed, 0, "all is allowed");
        assert!(kept + malformed + unusable + over <= page.lines().count() as u64, "{figures:?}");
        assert!(figures.points.len() as u64 <= kept, "{figures:?}");
        for (count, buckets) in &figures.histograms {
            assert_eq!(buckets.iter().sum::<u64>(), *count, "{figures:?}");
        }
        for (name, _, since, at) in &figures.points {
            assert!(since <= at, "{name} counts since a time to come");
        }
    }
    let values = |at: usize| {
        let points = read[at].points.iter();
        points.map(|(name, value, since, _)| (name, value, since)).collect::<Vec<_>>()
    };
    assert_eq!(values(0), values(1), "nothing has changed, and nothing has begun anew");
    assert_eq!(read[0].samples, read[1].samples);
}
