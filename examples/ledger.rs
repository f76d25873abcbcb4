//! A ledger: accounts of 64 bytes, transfers that happen wholly or not at all, each of
//! them on the disk before it is reported.
//!
//! ```sh
//! cargo run --release --example ledger -- /var/tmp/ledger
//! ```

use std::path::Path;

use bulla::engine::{Level, RECORD_LEN, Record, Store, StoreOptions};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An account as it is stored.
#[derive(Clone, Copy, PartialEq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
struct Account {
    id: U32,
    currency: [u8; 4],
    cents: U64,
    transfers: U64,
    reserved: [u8; 40],
}

impl Record for Account {
    const NAME: &'static str = "example.com/account";
    const SCHEMA: &'static str = "id u32, currency [u8; 4], cents u64, transfers u64";

    type Id = u32;
    type Invalid = std::convert::Infallible;

    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid> {
        Ok(zerocopy::transmute!(*bytes))
    }

    fn as_bytes(&self) -> &[u8; RECORD_LEN] {
        zerocopy::transmute_ref!(self)
    }

    fn id(&self) -> u32 {
        self.id.get()
    }

    /// No account is ever given up for room.
    fn is_persistent(&self) -> bool {
        true
    }
}

/// Why a transfer was not made.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is no account {0}")]
    NoAccount(u32),
    #[error("account {id} has {cents} cents")]
    TooLittle { id: u32, cents: u64 },
    #[error("from and to are the same account")]
    SameAccount,
    #[error("account {0} can't hold so much")]
    TooMuch(u32),
    #[error(transparent)]
    Store(#[from] bulla_engine::Error),
}

struct Ledger {
    accounts: Store<Account>,
}

impl Ledger {
    fn open(dir: &Path) -> Result<Self, bulla_engine::Error> {
        Ok(Self { accounts: Store::open_records(dir, &StoreOptions::new())? })
    }

    /// Opens an account; an error if there is one with this number.
    fn account(&self, id: u32, cents: u64) -> Result<(), bulla_engine::Error> {
        let currency = *b"EUR\0";
        let (id, cents) = (id.into(), cents.into());
        let account = Account { id, currency, cents, transfers: U64::ZERO, reserved: [0; 40] };
        self.accounts.at(Level::Strict).create(&account)
    }

    /// Moves money. On return it is durable; no crash leaves a half of it.
    fn transfer(&self, from: u32, to: u32, cents: u64) -> Result<(), Refused> {
        if from == to {
            return Err(Refused::SameAccount);
        }
        // It runs again if another transfer changes one of the two meanwhile.
        self.accounts.at(Level::Strict).transact(|t| {
            let mut payer = t.get(from)?.ok_or(Refused::NoAccount(from))?;
            let mut payee = t.get(to)?.ok_or(Refused::NoAccount(to))?;
            let (left, grown) = (payer.cents.get(), payee.cents.get());
            let too_little = Refused::TooLittle { id: from, cents: left };
            payer.cents = left.checked_sub(cents).ok_or(too_little)?.into();
            payee.cents = grown.checked_add(cents).ok_or(Refused::TooMuch(to))?.into();
            payer.transfers += 1;
            payee.transfers += 1;
            t.put(&payer)?;
            t.put(&payee)?;
            Ok(())
        })
    }

    fn total(&self) -> Result<u64, Refused> {
        Ok(self.accounts.iter()?.map(|account| account.cents.get()).sum())
    }
}

const ACCOUNTS: u32 = 8;
const OPENING_CENTS: u64 = 100_000;
const THREADS: u32 = 4;
const TRANSFERS: u32 = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: ledger DIR")?;
    let ledger = Ledger::open(dir.as_ref())?;
    if ledger.accounts.is_empty() {
        (1..=ACCOUNTS).try_for_each(|id| ledger.account(id, OPENING_CENTS))?;
    }
    let before = ledger.total()?;
    let start = std::time::Instant::now();
    let refused = work(&ledger)?;
    let (made, seconds) = (THREADS * TRANSFERS - refused, start.elapsed().as_secs_f64());
    println!("{made} transfers in {seconds:.2} s, each durable; {refused} lacked the money");
    for account in ledger.accounts.iter()? {
        let (id, cents, transfers) = (account.id(), account.cents.get(), account.transfers.get());
        println!("account {id}: {cents:>7} cents after {transfers} transfers");
    }
    assert_eq!(ledger.total()?, before, "money is neither made nor lost");
    Ok(ledger.accounts.close()?)
}

/// Transfers by several threads; returns how many were refused.
fn work(ledger: &Ledger) -> Result<u32, Refused> {
    let client = |thread: u32| {
        let mut refused = 0;
        for number in 0..TRANSFERS {
            let from = (thread + number) % ACCOUNTS + 1;
            let to = (thread + number * 3 + 1) % ACCOUNTS + 1;
            match ledger.transfer(from, to, u64::from(number * 97 % 50_000)) {
                Err(Refused::TooLittle { .. } | Refused::SameAccount) => refused += 1,
                done => done?,
            }
        }
        Ok(refused)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || client(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_neither_made_nor_lost_by_threads_and_reopening() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = Ledger::open(dir.path()).expect("made");
        (1..=ACCOUNTS).try_for_each(|id| ledger.account(id, OPENING_CENTS)).expect("accounts");
        let refused = work(&ledger).expect("transfers");
        assert!(refused < THREADS * TRANSFERS);
        assert_eq!(ledger.total().unwrap(), u64::from(ACCOUNTS) * OPENING_CENTS);
        let accounts: Vec<_> = ledger.accounts.iter().unwrap().collect();
        ledger.accounts.close().expect("closed");
        let ledger = Ledger::open(dir.path()).expect("opened");
        assert_eq!(ledger.accounts.iter().unwrap().collect::<Vec<_>>(), accounts);
        let made: u64 = accounts.iter().map(|account| account.transfers.get()).sum();
        assert_eq!(made, 2 * u64::from(THREADS * TRANSFERS - refused));
    }

    #[test]
    fn refused_transfer_changes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ledger = Ledger::open(dir.path()).expect("made");
        ledger.account(1, 10).expect("an account");
        ledger.account(2, u64::MAX).expect("an account");
        let before: Vec<_> = ledger.accounts.iter().unwrap().collect();
        for (from, to, cents) in [(1, 2, 11), (1, 3, 1), (3, 1, 1), (1, 1, 1), (1, 2, 1)] {
            assert!(ledger.transfer(from, to, cents).is_err(), "{from} to {to}");
        }
        assert!(ledger.account(1, 99).is_err(), "it is there");
        assert_eq!(ledger.accounts.iter().unwrap().collect::<Vec<_>>(), before);
    }
}
