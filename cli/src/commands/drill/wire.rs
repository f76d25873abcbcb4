//! What the drill's child reports to its parent, over a pipe: messages of 32 bytes.
//!
//! A message is written in one piece, and is read whole or not at all: the parent ignores
//! one that a kill cut short.

use std::io::{self, Read};

use bulla_wal::{Level, Lsn, Seq};

/// Bytes of a message.
pub(super) const LEN: usize = 32;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// The log is open; appending begins.
    Opened { next_seq: Seq, end: Lsn },
    /// A receipt is ready.
    Ack(Ack),
    /// Watermarks, read from the log in this order.
    Watermarks { durable: Lsn, written: Lsn },
    /// Everything below this is about to be purged.
    Purge { keep_from: Lsn },
}

/// An acknowledgement: `index` is the number of the client's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ack {
    pub(super) client: u8,
    pub(super) level: Level,
    pub(super) index: u64,
    pub(super) seq: Seq,
    pub(super) lsn: Lsn,
}

const OPENED: u8 = 1;
const ACK: u8 = 2;
const WATERMARKS: u8 = 3;
const PURGE: u8 = 4;

impl Message {
    pub(super) fn encode(&self) -> [u8; LEN] {
        let (head, words) = match *self {
            Self::Opened { next_seq, end } => ([OPENED, 0, 0], [0, next_seq.0, end.0]),
            Self::Ack(ack) => {
                let level = match ack.level {
                    Level::Relaxed => 0,
                    Level::Balanced => 1,
                    Level::Strict => 2,
                };
                ([ACK, ack.client, level], [ack.index, ack.seq.0, ack.lsn.0])
            }
            Self::Watermarks { durable, written } => {
                ([WATERMARKS, 0, 0], [0, durable.0, written.0])
            }
            Self::Purge { keep_from } => ([PURGE, 0, 0], [0, 0, keep_from.0]),
        };
        let mut bytes = [0; LEN];
        bytes[..3].copy_from_slice(&head);
        for (to, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        let ([head, words @ ..], []) = bytes.as_chunks::<8>() else { return None };
        let [a, b, c] = <[[u8; 8]; 3]>::try_from(words).ok()?.map(u64::from_le_bytes);
        Some(match head[0] {
            OPENED => Self::Opened { next_seq: Seq(b), end: Lsn(c) },
            ACK => Self::Ack(Ack {
                client: head[1],
                level: *Level::ALL.get(usize::from(head[2]))?,
                index: a,
                seq: Seq(b),
                lsn: Lsn(c),
            }),
            WATERMARKS => Self::Watermarks { durable: Lsn(b), written: Lsn(c) },
            PURGE => Self::Purge { keep_from: Lsn(c) },
            _ => return None,
        })
    }
}

/// Passes every whole message to `each` until the pipe ends. The last one may be cut short.
pub(super) fn read(mut from: impl Read, mut each: impl FnMut(Message)) -> io::Result<()> {
    let mut buffer = vec![0; 2048 * LEN];
    let mut filled = 0;
    loop {
        let count = match from.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        let (messages, _) = buffer[..filled].as_chunks::<LEN>();
        for bytes in messages {
            each(Message::decode(bytes).ok_or(io::ErrorKind::InvalidData)?);
        }
        let whole = messages.len() * LEN;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_are_read_and_a_cut_one_is_left_out() {
        let ack = Ack { client: 3, level: Level::Strict, index: 7, seq: Seq(8), lsn: Lsn(4160) };
        let messages = [
            Message::Opened { next_seq: Seq(5), end: Lsn(4096) },
            Message::Ack(ack),
            Message::Watermarks { durable: Lsn(1), written: Lsn(2) },
            Message::Purge { keep_from: Lsn(9) },
        ];
        let mut bytes = messages.map(|message| message.encode()).concat();
        bytes.truncate(bytes.len() - 1);
        let mut read_back = Vec::new();
        read(bytes.as_slice(), |message| read_back.push(message)).expect("read");
        assert_eq!(read_back, messages[..3]);
    }
}
