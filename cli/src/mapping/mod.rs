//! From rows of a CSV file to tokens.
//!
//! Every part of a token is a sum of columns times factors; a missing value (empty or `NA`)
//! adds nothing. `args.rs` has the options and presets, `rules.rs` the language of `--map`,
//! `fitted.rs` makes tokens.
//!
//! | preset `flights` | from | unit |
//! |---|---|---|
//! | id | number of the row from 1, entity type event | |
//! | 1 physical x, y, z | destination: latitude, longitude, altitude | degrees, degrees, 100 feet |
//! | 2 sensory x, y, z | origin: latitude, longitude, altitude | 100 degrees, 100 degrees, 10,000 feet |
//! | 3 motor x, y | air time, distance | hours, 1,000 miles |
//! | 4 emotional x, y | delay of departure, of arrival | days; 0 when cancelled |
//! | 7 temporal x, y, z | month, day, scheduled hour, local | z in hours with fraction |
//! | 8 abstract x | flight number | 10,000 |
//! | weight | distance | 50 miles: the longest is 99.7 |
//! | timestamp | scheduled departure, UTC (`time_hour` and `minute`) | seconds |
//! | flag ACTIVE | set when the flight left (has a `dep_time`) | |

mod args;
mod error;
mod fitted;
mod rules;

pub(crate) use self::args::MappingArgs;
pub(crate) use self::error::{MappingError, RowError};

#[cfg(test)]
mod tests {
    use bulla_engine::{EntityType, Flags, Space};
    use clap::Parser;
    use csv::StringRecord;

    use super::fitted::Mapping;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mapping: MappingArgs,
    }

    fn mapping(args: &[&str], headers: &[&str]) -> Result<Mapping, MappingError> {
        let line = Line::parse_from([&["line"], args].concat());
        line.mapping.resolve(&StringRecord::from(headers.to_vec()))
    }

    #[test]
    fn columns_of_one_target_are_added_up_and_missing_ones_are_zero() {
        let mapping = mapping(
            &["--map", "7.z=hour", "--map", "7.z=minute:1/60", "--map", "weight=w:0.01"],
            &["hour", "minute", "w"],
        )
        .expect("fits");
        let token = mapping.token(&StringRecord::from(vec!["5", "15", "2800"]), 6).expect("token");
        assert_eq!(token.coordinates(Space::Temporal), [0.0, 0.0, 5.25]);
        assert_eq!((token.weight(), token.id().local()), (28.0, 7));
        let token = mapping.token(&StringRecord::from(vec!["5", "NA", ""]), 0).expect("token");
        assert_eq!((token.coordinates(Space::Temporal)[2], token.weight()), (5.0, 0.0));
        let refused = mapping.token(&StringRecord::from(vec!["five", "0", "0"]), 0);
        assert!(matches!(refused, Err(RowError::Value { .. })));
        let refused = mapping.token(&StringRecord::from(vec!["5", "0", "10001"]), 0);
        assert!(matches!(refused, Err(RowError::Token(_))));
    }

    #[test]
    fn clamp_cuts_to_the_range() {
        let mapping = mapping(&["--map", "4.x=a", "--clamp"], &["a"]).expect("fits");
        let token = mapping.token(&StringRecord::from(vec!["7"]), 0).expect("token");
        assert_eq!(token.coordinates(Space::Emotional)[0], 3.2767);
    }

    #[test]
    fn a_rule_replaces_what_the_preset_says_of_its_target() {
        let headers = AIRPORTLESS.split(',').collect::<Vec<_>>();
        let row = StringRecord::from(ROW.split(',').collect::<Vec<_>>());
        let mapped = mapping(&["--map", "weight=day"], &headers).expect("fits");
        assert_eq!(mapped.token(&row, 0).expect("token").weight(), 1.0);
        let preset = mapping(&[], &headers).expect("fits").token(&row, 0).expect("token");
        assert_eq!(preset.weight(), 28.0);
        assert_eq!(preset.timestamp(), 1_357_034_400 + 15 * 60);
        assert_eq!(preset.coordinates(Space::Physical), [29.98, -95.34, 0.97]);
        assert!(preset.flags().contains(Flags::ACTIVE));
        assert_eq!(preset.id().entity_type(), EntityType::Event);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let there = ["a", "b"];
        let missing = mapping(&["--map", "weight=c"], &there).expect_err("no column");
        assert_eq!(missing.to_string(), r#"there is no column "c"; there are a, b"#);
        assert!(matches!(mapping(&[], &there), Err(MappingError::Nothing)));
        assert!(matches!(mapping(&["--map", "weight=a"], &[]), Err(MappingError::Empty)));
    }

    const AIRPORTLESS: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,\
        sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,\
        time_hour";
    const ROW: &str = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,\
        2013-01-01T10:00:00Z";
}
