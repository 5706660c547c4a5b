//! Times, as people read them: UTC, whole seconds (RFC 3339).

use std::fmt;
use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;
/// Seconds of 9999-12-31T23:59:59Z, the last time that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A moment in seconds since 1970; [`Display`](fmt::Display) gives `2026-11-23T23:59:59Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// From milliseconds since 1970.
    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(millis / 1_000)
    }

    /// `23:59:59`.
    pub(crate) fn time_of_day(self) -> String {
        let second = self.0 % DAY;
        format!(
            "{:02}:{:02}:{:02}",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Self(self.0.min(LAST));
        // The calendar repeats every 400 years, which begin on 1 March here (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        let days = shown.0 / DAY + DAYS_BEFORE_1970;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}T{}Z", shown.time_of_day())
    }
}

/// Reads a duration as people write one: `90s`, `15m`, `24h`, `7d`.
///
/// # Errors
/// What is wrong, in words for a usage error.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write 90s, 15m, 24h or 7d");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => DAY,
        Some(_) | None => return Err(wrong()),
    };
    let number: u64 = text
        .get(..text.len() - 1)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(wrong)?;
    let seconds = number.checked_mul(unit).ok_or_else(wrong)?;
    if seconds == 0 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with GNU `date -u -d @SECONDS +%FT%TZ`.
    #[test]
    fn moments_are_shown_as_the_calendar_has_them() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_478_400, "2026-11-24T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment(seconds).to_string(), shown);
        }
    }

    /// A sender chooses the time of a message.
    #[test]
    fn absurd_moment_is_shown_as_the_last_one() {
        assert_eq!(Moment(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Moment::from_millis(1_999), Moment(1));
    }

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "s",
            "0h",
            "24",
            "1w",
            "-1h",
            "+1h",
            "1.5h",
            " 1h",
            "1 h",
            "1é",
            "999999999999999999d",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
