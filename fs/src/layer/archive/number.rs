//! Numbers of a header: octal text, or binary behind a marking bit (GNU's base-256).
//!
//! Invariant: what does not fit or does not parse is `None`.

use crate::sys::stat::Timestamp;

/// A number that cannot be negative.
pub fn field(bytes: &[u8]) -> Option<u64> {
    signed(bytes).and_then(|value| u64::try_from(value).ok())
}

/// A number that may be negative, as times are.
pub fn signed(bytes: &[u8]) -> Option<i64> {
    match bytes.first()? {
        0x80 | 0xff => {
            let negative = bytes[0] == 0xff;
            let start = if negative { -1_i64 } else { 0 };
            bytes[1..].iter().try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(i64::from(*byte)))
        }
        _ => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            let digits = bytes[..end].trim_ascii();
            if digits.is_empty() {
                return Some(0);
            }
            digits.iter().try_fold(0_i64, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

/// A decimal number of a PAX record.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds of a PAX record, with a sign and a fraction.
pub fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let mut nanoseconds = digits.map(|digit| digit.is_ascii_digit().then_some(u32::from(digit.wrapping_sub(b'0'))));
    let nanoseconds = nanoseconds.try_fold(0_u32, |value, digit| Some(value * 10 + digit?))?;
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_binary_fields() {
        assert_eq!(field(b"0000644\0"), Some(0o644));
        assert_eq!(field(b"    644 "), Some(0o644));
        assert_eq!(field(b"\0\0\0\0"), Some(0));
        assert_eq!(field(b"00009\0"), None);
        assert_eq!(field(b"\x80\0\0\x01\0"), Some(256));
        assert_eq!(signed(b"\xff\xff\xff\xff"), Some(-1));
        assert_eq!(field(b"\xff\xff\xff\xff"), None);
        assert_eq!(field(&[0x80, 255, 255, 255, 255, 255, 255, 255, 255, 255]), None);
    }

    #[test]
    fn times_with_sign_and_fraction() {
        let at = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"1.0000000019"), at(1, 1));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"-1"), at(-1, 0));
        for broken in [&b""[..], b".", b"1.x", b"--1", b"1e3", b"99999999999999999999"] {
            assert_eq!(time(broken), None, "{broken:?}");
        }
    }
}
