//! Tokens as rows for people and programs.

use bulla_engine::{Space, Token};
use jiff::{SignedDuration, Timestamp};
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
    let time = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::from(seconds));
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
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
