//! Durations and sizes as an operator writes them: "15s", "500ms", "64kB".
//!
//! A bare number is refused because its unit would be a guess; only `0` needs none. Sizes count in
//! 1024s, as PostgreSQL does. Both directions live here, so that what is shown can be pasted back.

use std::time::Duration;

/// The longest duration: far beyond any use, and adding it to a clock cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(10_000 * 86_400);

/// Units of a duration in microseconds, longest first; the first name of a length is the one shown.
const DURATION_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Units of a size in bytes, largest first.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
    ("B", 1),
];

/// Reads "15s", "500ms", "0".
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let micros = parse_scaled(text, DURATION_UNITS).ok_or_else(|| {
        format!(
            "{text:?} is not a duration; write a whole number and us, ms, s, m, h or d: \"15s\", \
             \"500ms\""
        )
    })?;
    let duration = Duration::from_micros(micros);
    if duration > DURATION_MAX {
        return Err(format!("{text:?} is too long; the longest is \"10000d\""));
    }
    Ok(duration)
}

/// Reads "64kB", "256MB", "0", in bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    parse_scaled(text, SIZE_UNITS).ok_or_else(|| {
        format!("{text:?} is not a size; write a whole number and B, kB, MB, GB or TB: \"64kB\"")
    })
}

/// Writes a duration with the largest unit that divides it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    show_scaled(micros, DURATION_UNITS)
}

/// Writes a size with the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    show_scaled(bytes, SIZE_UNITS)
}

/// A whole number and a unit; none if it is anything else or does not fit.
fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().ok()?;
    let unit = unit.trim();
    if unit.is_empty() {
        return (number == 0).then_some(0);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

fn show_scaled(number: u64, units: &[(&str, u64)]) -> String {
    if number == 0 {
        return "0".to_owned();
    }
    let unit = units
        .iter()
        .find(|(_, factor)| number.is_multiple_of(*factor));
    let (name, factor) = unit.expect("BUG: the last unit is 1 and divides every number");
    format!("{}{name}", number / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_show() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("15s", 15_000),
            ("10m", 600_000),
            ("1 h", 3_600_000),
        ] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(show_duration(duration), text.replace(' ', ""));
        }
        assert_eq!(parse_duration("2min"), Ok(Duration::from_secs(120)));
        for text in [
            "",
            "15",
            "s",
            "-1s",
            "1.5s",
            "1h30m",
            "99999999999999999999s",
            "5 parsecs",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("10001d").is_err());
        assert!(parse_duration("18446744073709551615d").is_err());
    }

    #[test]
    fn sizes_read_and_show() {
        for (text, bytes) in [
            ("0", 0),
            ("1B", 1),
            ("64kB", 65_536),
            ("256MB", 268_435_456),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        for text in ["64", "64KB", "64 kb", "kB", "99999999999TB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
