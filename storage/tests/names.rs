//! Names of options and positions, as text and as JSON.

use bulla_storage::{Level, Method, Overflow};

#[test]
fn every_name_is_parsed_from_its_own_text_and_no_other() {
    for level in Level::ALL {
        assert_eq!(level.to_string().parse(), Ok(level));
    }
    for method in [Method::Direct, Method::Buffered] {
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    for overflow in [Overflow::Block, Overflow::Full] {
        assert_eq!(overflow.to_string().parse(), Ok(overflow));
    }
    let error = "Strict".parse::<Level>().unwrap_err();
    assert_eq!(error.to_string(), "expected relaxed, balanced or strict, found \"Strict\"");
    assert!("".parse::<Method>().is_err() && "fail".parse::<Overflow>().is_err());
}

#[cfg(feature = "serde")]
#[test]
fn positions_receipts_and_levels_are_read_from_the_json_that_they_are_written_as() {
    use bulla_storage::{Epoch, Lsn, Position, Range, Receipt, Seq};

    let receipt = Receipt { epoch: Epoch(1), lsn: Lsn(2), seq: Seq(3), level: Level::Strict };
    let json = serde_json::to_string(&receipt).unwrap();
    assert_eq!(json, r#"{"epoch":1,"lsn":2,"seq":3,"level":"strict"}"#);
    assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap(), receipt);
    for from in [Position::Start, (Epoch(1), Lsn(2)).into(), Position::at_wall_ns(5)] {
        let range = Range { from, to: Seq(9).into() };
        let json = serde_json::to_string(&range).unwrap();
        assert_eq!(serde_json::from_str::<Range>(&json).unwrap(), range, "{json}");
    }
}
