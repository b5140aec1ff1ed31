//! Lengths of time and moments as heads of answers write them: in nanoseconds, so that sums of
//! decimals are exact.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// In nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// Digits, of which the last few stand behind the point.
#[derive(Clone, Copy)]
pub(super) struct Decimal {
    digits: u64,
    /// Ten to the power of those behind the point.
    scale: u64,
}

/// A number without a sign.
pub(super) fn whole(digits: &[u8]) -> Option<u64> {
    let digit = |sum: u64, byte: &u8| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, digit))?
}

/// The decimal at the front of a text, and what follows.
pub(super) fn decimal(text: &[u8]) -> Option<(Decimal, &[u8])> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (front, rest) = text.split_at(digits(text));
    let mut number = Decimal { digits: whole(front)?, scale: 1 };
    let [b'.', behind @ ..] = rest else { return Some((number, rest)) };
    let (behind, rest) = behind.split_at(digits(behind));
    // What is smaller than a nanosecond is left out.
    for byte in behind.iter().take(9) {
        number.digits = number.digits.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        number.scale *= 10;
    }
    Some((number, rest))
}

impl Decimal {
    /// So many of this unit.
    pub(super) fn times(self, unit: u64) -> Option<u64> {
        u64::try_from(u128::from(self.digits) * u128::from(unit) / u128::from(self.scale)).ok()
    }

    /// Without what stands behind the point.
    pub(super) fn whole(self) -> u64 {
        self.digits / self.scale
    }
}

/// `4ms`, `1m30s`, `7.66s`.
pub(super) fn length(text: &[u8]) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let (number, behind) = decimal(rest)?;
        let letters = behind.iter().take_while(|byte| !byte.is_ascii_digit()).count();
        let (unit, behind) = behind.split_at(letters);
        let unit = match unit {
            b"ns" => 1,
            b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
            b"ms" => SECOND / 1000,
            b"s" => SECOND,
            b"m" => 60 * SECOND,
            b"h" => 3_600 * SECOND,
            b"d" => 86_400 * SECOND,
            _ => return None,
        };
        sum = sum.checked_add(number.times(unit)?)?;
        rest = behind;
    }
    Some(sum)
}

/// A moment as RFC 3339 writes it. Whole seconds of UTC, which is what is sent, are read here, at a
/// tenth of the cost.
pub(super) fn rfc_3339(text: &[u8]) -> Option<i128> {
    if let [y @ .., b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'Z'] =
        text
        && y.len() == 4
    {
        return moment(
            y,
            whole(&[*m1, *m2])?,
            &[*d1, *d2],
            [&[*h1, *h2], &[*n1, *n2], &[*s1, *s2]],
        );
    }
    let moment: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(moment.as_nanosecond())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, and what else mail allows.
pub(super) fn http_date(text: &[u8]) -> Option<i128> {
    const MONTHS: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    if let [
        _,
        _,
        _,
        b',',
        b' ',
        day @ ..,
        b' ',
        h1,
        h2,
        b':',
        n1,
        n2,
        b':',
        s1,
        s2,
        b' ',
        b'G',
        b'M',
        b'T',
    ] = text
        && let [d1, d2, b' ', m1, m2, m3, b' ', year @ ..] = day
        && let Some(month) = MONTHS.iter().position(|month| **month == [*m1, *m2, *m3])
    {
        let time: [&[u8]; 3] = [&[*h1, *h2], &[*n1, *n2], &[*s1, *s2]];
        return moment(year, month as u64 + 1, &[*d1, *d2], time);
    }
    let text = std::str::from_utf8(text).ok()?;
    let moment = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(moment.as_nanosecond())
}

/// Nanoseconds since 1970.
fn moment(year: &[u8], month: u64, day: &[u8], time: [&[u8]; 3]) -> Option<i128> {
    let [hour, minute, second] = time.map(whole);
    let (year, day) = (whole(year)?, whole(day)?);
    let date = jiff::civil::Date::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
    );
    let days = date.ok()?.duration_since(jiff::civil::date(1970, 1, 1)).as_secs();
    let (hour, minute, second) = (hour?, minute?, second?);
    // The 60th second is a leap second.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let seconds = i128::from(days) + i128::from(hour * 3_600 + minute * 60 + second);
    is_time.then(|| seconds * i128::from(SECOND))
}
