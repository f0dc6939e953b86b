//! Money in minor units of its currency (ISO 4217).

/// How many decimals a currency has: two, unless it is one of the others.
#[must_use]
pub fn decimals(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND" | "VUV"
        | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        _ => 2,
    }
}

/// An amount in minor units as people read it: `880.00 EUR`.
#[must_use]
pub fn money_text(minor: i64, currency: &str) -> String {
    let places = decimals(currency);
    let factor = 10_u64.pow(places);
    let sign = if minor < 0 { "-" } else { "" };
    let (whole, part) = (minor.unsigned_abs() / factor, minor.unsigned_abs() % factor);
    match places {
        0 => format!("{sign}{whole} {currency}"),
        _ => format!("{sign}{whole}.{part:0width$} {currency}", width = places as usize),
    }
}
