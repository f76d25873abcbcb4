//! Codecs and pure parts, for any values: what is decoded is what the bytes say, and what
//! is encoded is decoded again.

use bulla_engine::entries::{self, LogEntry, Mutation};
use bulla_engine::{Axis, Space, TOKEN_LEN, Token, TokenError, TokenId};
use bulla_storage::format::{
    Content, Control, EpochStart, Header, LogId, LowWater, Truncation, max_truncations,
};
use bulla_storage::frames::timeline::Timeline;
use bulla_tests::times::at_ms;
use bulla_wal::{Epoch, Error, Lsn, SegmentNumber, Seq};
use quickcheck::{TestResult, quickcheck};

/// Positions and numbers end well before 64 bits do.
const RANGE: u64 = 1 << 60;

/// The first bytes, and zeros where there are too few.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}

fn low_water((segment, lsn, seq): (u64, u64, u64), prev_crc: u32, epoch: u32) -> LowWater {
    LowWater {
        segment: SegmentNumber((segment % RANGE) | 1),
        lsn: Lsn(lsn % RANGE / 16384 * 16384),
        seq: Seq((seq % RANGE) | 1),
        prev_crc,
        epoch: Epoch(epoch | 1),
        wall_ns: seq,
    }
}

quickcheck! {
    fn token_is_its_bytes_or_they_are_refused_for_id_or_weight(bytes: Vec<u8>) -> bool {
        let bytes: [u8; TOKEN_LEN] = array(&bytes);
        let id = u32::from_le_bytes(array(&bytes[48..52]));
        let weight = f32::from_le_bytes(array(&bytes[54..58]));
        match Token::from_bytes(&bytes) {
            Ok(token) => id != 0 && (0.0..=100.0).contains(&weight) && *token.as_bytes() == bytes,
            Err(TokenError::ZeroId) => id == 0,
            Err(TokenError::Weight(_)) => !(0.0..=100.0).contains(&weight),
            Err(_) => false,
        }
    }

    fn coordinate_is_within_half_a_step_or_refused(space: u8, axis: u8, value: f64, scale: u8) -> bool {
        let space = Space::ALL[usize::from(space) % Space::ALL.len()];
        let axis = Axis::ALL[usize::from(axis) % Axis::ALL.len()];
        // Most numbers are far out of range: a part of the space's own is tried, too.
        let value = if scale == 0 { value } else { (value % 1.5) * space.limit() };
        let step = 1.0 / space.scale();
        let built = Token::builder(TokenId(1)).coordinate(space, axis, value).build();
        match built {
            Ok(token) => {
                let at = Axis::ALL.iter().position(|other| *other == axis);
                let kept = token.coordinates(space)[at.unwrap_or(0)];
                (kept - value).abs() <= step / 2.0 + 1e-9 && value.abs() <= space.limit() + step
            }
            Err(TokenError::Coordinate { .. }) => value.is_nan() || value.abs() > space.limit(),
            Err(_) => false,
        }
    }

    fn changes_are_decoded_as_they_were_encoded(ids: Vec<u32>, at: u64, kind: u16) -> TestResult {
        let ids: Vec<u32> = ids.into_iter().map(|id| id.max(1)).collect();
        if ids.is_empty() {
            return TestResult::discard();
        }
        let token = |id: &u32| Token::builder(TokenId(*id)).build().expect("in range");
        let (kind, payload, expected): (u16, Vec<u8>, Vec<Mutation>) = match kind % 3 {
            0 => (
                entries::PUT,
                ids.iter().flat_map(|id| *token(id).as_bytes()).collect(),
                ids.iter().map(|id| Mutation::Put(token(id))).collect(),
            ),
            1 => (
                entries::DELETE,
                ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
                ids.iter().map(|id| Mutation::Delete(TokenId(*id))).collect(),
            ),
            _ => (
                entries::EXPIRE,
                ids.iter().flat_map(|id| entries::expiry_item(*id, at)).collect(),
                ids.iter().map(|id| Mutation::Expire(TokenId(*id), at_ms(at))).collect(),
            ),
        };
        let changes = LogEntry::<Token>::decode(kind, &payload).expect("valid");
        TestResult::from_bool(changes.len() == ids.len() && changes.iter().eq(expected))
    }

    fn entry_of_any_bytes_is_whole_changes_or_refused(kind: u16, payload: Vec<u8>) -> bool {
        let kind = kind % 5;
        LogEntry::<Token>::decode(kind, &payload).is_ok_and(|changes| {
            let item = payload.len() / changes.len();
            payload.len().is_multiple_of(changes.len()) && changes.iter().count() == changes.len() && item >= 4
        }) || LogEntry::<Token>::decode(kind, &payload).is_err()
    }

    fn control_is_decoded_as_it_was_encoded(
        counter: u64, id: Vec<u8>, mark: (u64, u64, u64), prev_crc: u32, epoch: u32, nonce: u64, sector: u8
    ) -> bool {
        let control = Control {
            counter: (counter % RANGE) | 1,
            log_id: LogId(array(&id)),
            sector: 512 << (sector % 6),
            epoch: Epoch(epoch | 1),
            nonce,
            compatible: 0,
            low_water: low_water(mark, prev_crc, epoch),
            content: if epoch.is_multiple_of(2) { Content::PLAIN } else { Content::new("x", epoch, sector.into()) },
        };
        let bytes = control.encode();
        bytes.len() == control.sector as usize && Control::decode(&bytes) == Ok(control)
    }

    fn header_is_decoded_as_it_was_encoded_with_the_newest_cuts(
        number: u64, epochs: (u32, u64, u64), base: u64, first_seq: u64, truncations: Vec<u32>
    ) -> bool {
        let (epoch, nonce, previous_nonce) = epochs;
        let truncations: Vec<Truncation> = (1..)
            .zip(truncations)
            .map(|(epoch, at)| Truncation { epoch: Epoch(epoch), truncated_at: Lsn(u64::from(at) * 512) })
            .collect();
        let base = Lsn(base % RANGE / 512 * 512);
        let opening = EpochStart {
            base,
            first_seq: Seq((first_seq % RANGE) | 1),
            replaces_from: base,
            truncated_at: base,
            truncations: truncations.clone(),
        };
        let header = Header {
            log_id: LogId([3; 16]),
            number: SegmentNumber((number % RANGE) | 1),
            epoch: Epoch(epoch | 0x100),
            nonce,
            previous_nonce,
            sector: 512,
            wall_ns: nonce,
            epoch_start: Some(opening),
        };
        let Ok(decoded) = Header::decode(&header.encode()) else { return false };
        let kept = decoded.epoch_start.as_ref().map(|opening| opening.truncations.clone());
        let newest = truncations[truncations.len().saturating_sub(max_truncations(512))..].to_vec();
        decoded.encode() == header.encode() && kept == Some(newest)
    }

    /// Against the definition: no later epoch cut at or below it, and nothing purged it.
    fn position_is_kept_as_the_cuts_of_later_epochs_say(
        truncations: Vec<u8>, purged: u8, epoch: u8, lsn: u8
    ) -> bool {
        let mark = LowWater { lsn: Lsn(u64::from(purged)), ..LowWater::START };
        let mut timeline = Timeline::new(mark, []);
        for (epoch, truncated_at) in (2..).zip(&truncations) {
            timeline.push(Epoch(epoch), Lsn(u64::from(*truncated_at)));
        }
        let (epoch, lsn) = (u32::from(epoch % 16) + 1, u64::from(lsn));
        let later = (2..).zip(&truncations).filter(|(by, _)| *by > epoch);
        let is_lost = later.clone().any(|(_, truncated_at)| lsn >= u64::from(*truncated_at));
        let is_read_lost = later.clone().any(|(_, truncated_at)| lsn > u64::from(*truncated_at));
        let checked = match timeline.check(Epoch(epoch), Lsn(lsn)) {
            Ok(()) => !is_lost && lsn >= u64::from(purged),
            Err(Error::Purged { .. }) => lsn < u64::from(purged),
            Err(Error::Diverged { .. }) => is_lost && lsn >= u64::from(purged),
            Err(_) => false,
        };
        checked && timeline.check_read(Epoch(epoch), Lsn(lsn)).is_ok() != is_read_lost
    }
}
