//! How long ago something was, as docker says it.
//!
//! Must not know containers. Invariant: a text that is no moment has no age.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A moment as RFC 3339 writes it; none for another text, and for what lies before 1970.
pub fn parse(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok().filter(|number| *number >= 0);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let marks = text.as_bytes();
    if (marks[4], marks[7], marks[13], marks[16]) != (b'-', b'-', b':', b':') || !(1..=12).contains(&month) {
        return None;
    }
    // Behind the seconds: a fraction, then Z or the distance to UTC.
    let zone = text[19..].trim_start_matches(|letter: char| letter == '.' || letter.is_ascii_digit());
    let ahead = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            match zone.as_bytes()[0] {
                b'+' => seconds,
                b'-' => -seconds,
                _ => return None,
            }
        }
    };
    // Years begin in March, so that the leap day is the last; 306 days are from March to December.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - ahead;
    u64::try_from(seconds).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A length of time in docker's words, such as `3 weeks` and `About an hour`.
pub fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".into(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        HOUR..7200 => "About an hour".into(),
        7200..172_800 => format!("{} hours", seconds / HOUR),
        _ if seconds < 14 * DAY => format!("{} days", seconds / DAY),
        _ if seconds < 60 * DAY => format!("{} weeks", seconds / DAY / 7),
        _ if seconds < 730 * DAY => format!("{} months", seconds / DAY / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

/// How long ago a moment was; of one in the future, less than a second.
pub fn ago(text: &str) -> Option<String> {
    let passed = SystemTime::now().duration_since(parse(text)?).unwrap_or_default();
    Some(format!("{} ago", length(passed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_were_written() {
        for seconds in [0, 951_782_400, 1_735_689_599, 4_102_444_800] {
            let moment = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(parse(&crate::oci::log::rfc3339(moment)), Some(moment), "{seconds}");
        }
        let utc = parse("2024-03-01T12:00:00Z");
        assert!(utc.is_some());
        assert_eq!(parse("2024-03-01T14:30:00.123+02:30"), utc);
        assert_eq!(parse("2024-03-01T07:00:00-05:00"), utc);
        for text in [
            "",
            "yesterday",
            "2024-13-01T00:00:00Z",
            "2024-03-01T12:00:00",
            "2024-03-01T12:00:00?",
            "20240301T120000.000000Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn lengths_are_in_dockers_words() {
        let say = |seconds| length(Duration::from_secs(seconds));
        let expected = [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (119, "About a minute"),
            (7199, "About an hour"),
            (47 * HOUR, "47 hours"),
            (13 * DAY, "13 days"),
            (59 * DAY, "8 weeks"),
            (700 * DAY, "23 months"),
            (800 * DAY, "2 years"),
        ];
        for (seconds, text) in expected {
            assert_eq!(say(seconds), text);
        }
    }
}
