//! Numbers for people: one way to write each kind, over all commands.

use bytesize::ByteSize;

/// Returns 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes with a binary unit: `1.5 MiB`.
pub(crate) fn size(len: u64) -> String {
    ByteSize(len).display().iec().to_string()
}

/// Returns the shortest decimal number that reads back as the same `f32`.
pub(crate) fn shortest(value: f32) -> f64 {
    // Going through text is what makes 0.1 stay 0.1 instead of 0.10000000149011612.
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// Returns the value rounded to this number of decimals.
pub(crate) fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 64 << 20].map(size), ["0 B", "1023 B", "1.5 KiB", "64.0 MiB"]);
        assert_eq!(rounded(2.0 / 3.0, 3), 0.667);
    }

    #[test]
    fn f32_is_written_in_its_shortest_form_and_reads_back() {
        for (value, text) in [(14.16_f32, "14.16"), (28.0, "28.0"), (0.1, "0.1"), (1e-7, "1e-7")] {
            assert_eq!(serde_json::json!(shortest(value)).to_string(), text);
            #[expect(clippy::cast_possible_truncation, reason = "back to what it was")]
            let back = shortest(value) as f32;
            assert_eq!(back, value);
        }
    }
}
