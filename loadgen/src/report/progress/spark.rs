//! Small charts of letters.

/// From nothing to all.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How far something has come, in so many letters: those for what is done and what is not.
pub(super) fn bar(share: f64, letters: usize, (done, open): (char, char)) -> String {
    // A run that lasts no time is over; and while the last answers come, it is no further than its end.
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
    let full = (share * letters as f64).round() as usize;
    let letters = (0..letters).map(|place| if place < full { done } else { open });
    letters.collect()
}

/// A line through these values, from nothing up to the highest, in no more letters than that; where
/// there is none it has a gap.
pub(super) fn line(values: &[Option<f64>], letters: usize) -> String {
    let each = values.len().div_ceil(letters.max(1)).max(1);
    // From the end, so that what is drawn does not change while it moves on.
    let highest = |some: &[Option<f64>]| some.iter().flatten().copied().reduce(f64::max);
    let cells: Vec<_> = values.rchunks(each).map(highest).collect();
    let most = highest(&cells).unwrap_or(0.0);
    let block = |value: f64| match most > 0.0 {
        true => {
            BLOCKS
                [((value / most * BLOCKS.len() as f64).ceil() as usize).clamp(1, BLOCKS.len()) - 1]
        }
        false => BLOCKS[0],
    };
    cells.iter().rev().map(|cell| cell.map_or(' ', block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_whatever_it_shows() {
        assert_eq!(bar(0.25, 8, ('#', '-')), "##------");
        for share in [0.0, 0.5, 1.0, 7.0, -1.0, f64::NAN] {
            assert_eq!(bar(share, 20, ('━', '─')).chars().count(), 20, "{share}");
        }
    }

    #[test]
    fn a_line_goes_from_nothing_to_the_highest_and_has_gaps() {
        let values = [Some(0.0), Some(1.0), None, Some(4.0), Some(8.0)];
        assert_eq!(line(&values, 10), "▁▁ ▄█");
        assert_eq!(line(&values, 3), "▁▁█", "two values are the higher of both");
        assert_eq!(line(&[Some(0.0); 3], 10), "▁▁▁");
        assert_eq!((line(&[], 10), line(&[None; 2], 0)), (String::new(), " ".to_owned()));
    }
}
