//! Units of the configuration: durations, sizes, money and rates, each from text, each with a clear error.

use std::time::Duration;

use crate::call::decimals;

/// `250ms`, `90s`, `15m`, `4h`, `30d`.
///
/// # Errors
/// When it is none, with how one is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write `250ms`, `90s`, `15m`, `4h` or `30d`");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).filter(|ms| *ms <= 3_153_600_000_000).map(Duration::from_millis).ok_or_else(wrong)
}

/// `512`, `64KiB`, `1MiB`.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is not a size; write `65536`, `64KiB` or `1MiB`");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: usize = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// `500.00 EUR` to minor units and currency.
pub(super) fn money(text: &str) -> Result<(i64, String), String> {
    let wrong = || format!("`{text}` is not an amount of money; write `500.00 EUR`");
    let (amount, currency) = text.split_once(' ').ok_or_else(wrong)?;
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(wrong());
    }
    let places = decimals(currency);
    let (whole, part) = amount.split_once('.').unwrap_or((amount, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > places as usize {
        return Err(format!("{} (at most {places} decimals in {currency})", wrong()));
    }
    let missing = places as usize - part.len();
    let minor = format!("{whole}{part}{}", "0".repeat(missing));
    minor.parse().map(|m| (m, currency.to_owned())).map_err(|_| wrong())
}

/// `50/s`, `10/m`, `1000/h`: how many in how long.
pub(super) fn rate(text: &str) -> Result<(u32, Duration), String> {
    let wrong = || format!("`{text}` is not a rate; write `50/s`, `10/m` or `1000/h`");
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let number: u32 = number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    let period = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err(wrong()),
    };
    Ok((number, period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::money_text;

    #[test]
    fn units_read_what_the_sample_writes() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(money("500.00 EUR"), Ok((50_000, "EUR".into())));
        assert_eq!(money("0.02 EUR"), Ok((2, "EUR".into())));
        assert_eq!(money("500 JPY"), Ok((500, "JPY".into())));
        assert_eq!(rate("10/m"), Ok((10, Duration::from_secs(60))));
        assert_eq!(money_text(88_000, "EUR"), "880.00 EUR");
        assert_eq!(money_text(-5, "EUR"), "-0.05 EUR");
    }

    #[test]
    fn what_is_not_a_unit_is_refused() {
        for text in ["", "m", "15", "1.5h", "-1s", "99999999999999999999d", "15 m"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["5", "5 eur", "5.001 EUR", "1e3 EUR", "-5 EUR", "5.0 JPY", "EUR 5"] {
            assert!(money(text).is_err(), "{text}");
        }
        assert!(rate("0/s").is_err());
        assert!(size("1MB").is_err());
    }
}
