//! Tokens as rows for people and programs.

use bulla_engine::{Space, Token};
use serde_json::Value;

use crate::fields;
use crate::output::{Fields, Format};

/// A token's fields: all of them for programs, the telling ones for people.
pub(crate) fn row(token: &Token, format: Format) -> Fields {
    let flags: Vec<_> = token.flags().names().collect();
    if format == Format::Table {
        return fields! {
            "id": token.id().0.to_string(),
            "local": token.id().local(),
            "type": token.id().entity_type().name(),
            "time": time(token.timestamp()),
            "weight": rounded(f64::from(token.weight())),
            "physical": point(token, Space::Physical),
            "temporal": point(token, Space::Temporal),
            "flags": flags.join("+"),
        };
    }
    all(token, format)
}

/// Everything that a token holds.
pub(crate) fn all(token: &Token, format: Format) -> Fields {
    let people = format == Format::Table;
    let (id, timestamp) = (token.id().0, token.timestamp());
    let flags: Vec<_> = token.flags().names().collect();
    let mut fields = fields! {
        "id": if people { Value::from(id.to_string()) } else { Value::from(id) },
        "local_id": token.id().local(),
        "entity_type": token.id().entity_type().name(),
        "domain": token.id().domain(),
    };
    for space in Space::ALL {
        fields.insert(space.name().to_owned(), token.coordinates(space).to_vec().into());
    }
    fields.extend(fields! {
        "flags": if people { Value::from(flags.join("+")) } else { Value::from(flags) },
        "flag_entity_type": token.flags().entity_type().name(),
        "flag_user": token.flags().user(),
        "weight": token.weight(),
        "field_radius": token.field_radius(),
        "field_strength": token.field_strength(),
        "timestamp": if people { Value::from(time(timestamp)) } else { Value::from(timestamp) },
    });
    fields
}

fn point(token: &Token, space: Space) -> String {
    token.coordinates(space).map(|value| rounded(value).to_string()).join(" ")
}

/// Rounded to four decimals, the finest that a coordinate has.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Seconds since 1970 as `2013-01-01 10:15:00` in UTC.
pub(crate) fn time(seconds: u32) -> String {
    let (days, second) = (i64::from(seconds / 86_400), seconds % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": civil_from_days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::utc_seconds;

    #[test]
    fn times_read_back() {
        for seconds in [0, 951_782_399, 1_357_035_300, 1_709_164_801, u32::MAX] {
            assert_eq!(utc_seconds(&time(seconds)), Some(i64::from(seconds)));
        }
    }
}
