//! Numbers and times in the fewest characters that tell what matters.

/// A time with its unit.
pub(super) fn time(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds of what somebody waited"
    )]
    let whole = seconds.clamp(0.0, 1e12) as u64;
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s.max(0.0) * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {} s", whole / 60, whole % 60),
        s if s < 86_400.0 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// The same, if there is one.
pub(super) fn time_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), time)
}

/// Bytes with their unit, by 1024.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn bytes(n: u64) -> String {
    let mut rest = n as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if rest < 1024.0 {
            let digits = usize::from(unit != "B" && rest < 100.0);
            return format!("{rest:.digits$} {unit}");
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} TB")
}

/// A number a second.
pub(super) fn rate(n: f64) -> String {
    let digits = usize::from(n < 100.0);
    format!("{n:.digits$}/s")
}

/// What an application calls itself.
pub(super) fn named(application: &str) -> &str {
    match application {
        "" => "(no name)",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_digits_and_a_unit() {
        for (seconds, shown) in [
            (0.0, "0 us"),
            (0.000_35, "350 us"),
            (0.0042, "4.2 ms"),
            (0.25, "250 ms"),
            (0.9999, "1.0 s"),
            (12.34, "12.3 s"),
            (75.0, "1 min 15 s"),
            (7380.0, "2 h 3 min"),
            (200_000.0, "2 d 7 h"),
            (-1.0, "0 us"),
        ] {
            assert_eq!(time(seconds), shown);
        }
        assert_eq!((&*bytes(900), &*bytes(1536)), ("900 B", "1.5 kB"));
        assert_eq!(bytes(u64::MAX), "16777216.0 TB");
        assert_eq!((&*rate(3.25), &*rate(1234.6)), ("3.2/s", "1235/s"));
    }
}
