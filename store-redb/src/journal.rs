//! The journal: small transactions one after another, each durable by one flush.
//!
//! A page for the header, then two halves. One half is written while what the other holds is folded into redb; a
//! half is written again from its start when redb has durably taken in all of it. Records begin at pages of
//! 4 KiB, so that a torn write never touches one that was acknowledged:
//!
//! | bytes | |
//! |---|---|
//! | 16 | checksum of all that follows: BLAKE3 keyed with the store's secret |
//! | 4 | length of the rows in bytes |
//! | 8 | the record's number: one more than that of the record before |
//! | | the rows: key's length (2), value's length (4, all ones for a row that goes), key, value |
//!
//! **Reading it.** redb knows the number of the last record that it has taken in. Those after it must follow without
//! a gap. What a power cut tore was never acknowledged, and has no valid checksum; it can only be the last, so it
//! is no gap. A damaged record in the middle is one, and an error. The checksum is keyed, because most data here
//! was chosen by others: a value that looks like a record is not one.

use std::io;

use redb::StorageBackend;
use sync_core::store::StoreError;

use crate::{
    error,
    overlay::{Layer, Row},
};

/// Where records begin, and what no write shares with the one before.
const PAGE: usize = 4_096;

const MAGIC: &[u8; 8] = b"SYNCJRNL";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 16;

const CHECKSUM: usize = 16;
const RECORD_HEADER: usize = CHECKSUM + 4 + 8;

/// Stands for the value's length where a row goes.
const GONE: u32 = u32::MAX;

/// What ties a journal to its store: random, kept in redb.
#[derive(Clone, Copy)]
pub(crate) struct Secret(pub [u8; 32]);

impl Secret {
    fn checksum(&self, record: &[u8]) -> [u8; CHECKSUM] {
        let hash = blake3::keyed_hash(&self.0, record);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_be_bytes());
        header[12..].copy_from_slice(&self.checksum(b"header"));
        header
    }
}

/// The rows of one transaction, as they will stand in the journal.
#[derive(Debug)]
pub(crate) struct Record(Vec<u8>);

impl Default for Record {
    fn default() -> Self {
        Self(vec![0; RECORD_HEADER])
    }
}

impl Record {
    /// How many bytes of rows it has.
    pub fn len(&self) -> usize {
        self.0.len() - RECORD_HEADER
    }

    /// What a row adds to it.
    pub fn len_of(key: &[u8], value: Option<&[u8]>) -> usize {
        6 + key.len() + value.map_or(0, <[u8]>::len)
    }

    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let key_len = u16::try_from(key.len()).expect("keys have at most 2,100 bytes");
        let value_len = value.map_or(GONE, |value| u32::try_from(value.len()).expect("values have at most 4 MiB"));
        self.0.extend_from_slice(&key_len.to_be_bytes());
        self.0.extend_from_slice(&value_len.to_be_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value.unwrap_or_default());
    }
}

/// Takes the rows of a record apart.
fn rows(mut bytes: &[u8], mut visit: impl FnMut(&[u8], Row)) -> Option<()> {
    while !bytes.is_empty() {
        let (key_len, rest) = bytes.split_first_chunk::<2>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_len)))?;
        let value_len = u32::from_be_bytes(*value_len);
        let (value, rest) = match value_len {
            GONE => (None, rest),
            len => rest.split_at_checked(len as usize).map(|(value, rest)| (Some(value.into()), rest))?,
        };
        visit(key, value);
        bytes = rest;
    }
    Some(())
}

/// A journal that is open.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Box<dyn StorageBackend>,
    secret: Secret,
    place: String,
    half_bytes: u64,
    /// The half that is written, 0 or 1, and where in it the next record goes.
    half: u64,
    at: u64,
    /// The number of the last record.
    number: u64,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A record that was found: its number, where it begins, and all of it.
struct Found {
    number: u64,
    at: u64,
    record: Vec<u8>,
}

impl Journal {
    /// Opens the journal of a store that has taken in the records up to `folded`, and answers what follows
    /// them. That must be folded before the first record is appended.
    pub fn open(
        file: Box<dyn StorageBackend>,
        (secret, folded): (Secret, u64),
        half_bytes: u64,
        place: &str,
    ) -> Result<(Self, Layer), StoreError> {
        let mut journal =
            Self { file, secret, place: format!("{place}.journal"), half_bytes, half: 0, at: 0, number: folded };
        let is_new = !journal.check_header()?;
        let mut layer = Layer::default();
        if is_new {
            // Shorter than a page until the first record: see `check_header`.
            let shortening = |error| error::io("shortening", &journal.place, error);
            journal.file.set_len(0).map_err(shortening)?;
            journal.put(0, &secret.header())?;
            return Ok((journal, layer));
        }
        let mut found = journal.find(folded)?;
        found.sort_by_key(|record| record.number);
        for record in &found {
            journal.number += 1;
            if record.number != journal.number {
                let (number, missing) = (record.number, journal.number);
                return Err(journal.corrupt(&format!("it has record {number}, but record {missing} is damaged")));
            }
            rows(&record.record[RECORD_HEADER..], |key, row| layer.set(key, row))
                .ok_or_else(|| journal.corrupt("a record cannot be read"))?;
        }
        if let Some(last) = found.last() {
            // Nobody knows whether its flush succeeded, and a flush that failed cannot be repeated: the system
            // takes the pages for written. Written anew they are flushed for certain.
            journal.put(last.at, &last.record)?;
        }
        Ok((journal, layer))
    }

    fn corrupt(&self, what: &str) -> StoreError {
        StoreError::Corrupt(format!("{}: {what}", self.place))
    }

    /// Whether there is one. One of a newer version is an error, and so is one of another store, unless it is empty:
    /// nothing can be lost with that. A header alone is written anew: it may be one whose flush failed, which is
    /// read from the system's memory and will never be on the disk.
    fn check_header(&self) -> Result<bool, StoreError> {
        let mut header = [0; HEADER];
        if self.len()? < HEADER as u64 {
            return Ok(false);
        }
        self.file.read(0, &mut header).map_err(|error| error::io("reading", &self.place, error))?;
        if header == [0; HEADER] {
            return Ok(false);
        }
        let version = u32::from_be_bytes(*header[8..].first_chunk().expect("a header has a version"));
        if &header[..8] == MAGIC && version > VERSION {
            return Err(StoreError::NewerFormat { path: self.place.clone(), found: version, known: VERSION });
        }
        match header == self.secret.header() {
            true => Ok(self.len()? >= PAGE as u64),
            false if self.len()? <= PAGE as u64 => Ok(false),
            false => Err(self.corrupt(
                "it is not the journal of this store, and not empty: bring back the store that it belongs to, or move it away",
            )),
        }
    }

    fn len(&self) -> Result<u64, StoreError> {
        self.file.len().map_err(|error| error::io("reading", &self.place, error))
    }

    /// All records after `folded`, wherever they are: neither half says how long it is.
    fn find(&self, folded: u64) -> Result<Vec<Found>, StoreError> {
        let reading = |error: io::Error| error::io("reading", &self.place, error);
        let len = self.len()?;
        let mut found = Vec::new();
        let mut at = PAGE as u64;
        while at + RECORD_HEADER as u64 <= len {
            let mut header = [0; RECORD_HEADER];
            self.file.read(at, &mut header).map_err(reading)?;
            let rows = u32::from_be_bytes(*header[CHECKSUM..].first_chunk().expect("a record has a length"));
            let number = u64::from_be_bytes(*header[CHECKSUM + 4..].first_chunk().expect("a record has a number"));
            let size = RECORD_HEADER as u64 + u64::from(rows);
            let mut next = at + PAGE as u64;
            if number > folded && size <= self.half_bytes && at + size <= len {
                let mut record = vec![0; size as usize];
                self.file.read(at, &mut record).map_err(reading)?;
                if record[..CHECKSUM] == self.secret.checksum(&record[CHECKSUM..]) {
                    next = at + size.next_multiple_of(PAGE as u64);
                    found.push(Found { number, at, record });
                }
            }
            at = next;
        }
        Ok(found)
    }

    /// Writes and flushes.
    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write(at, bytes).map_err(|error| error::io("writing", &self.place, error))?;
        self.file.sync_data().map_err(|error| error::io("flushing", &self.place, error))
    }

    /// How many bytes of rows a record can have in the half that is written.
    pub fn room(&self) -> usize {
        let pages = (self.half_bytes - self.at) / PAGE as u64;
        (pages as usize * PAGE).saturating_sub(RECORD_HEADER)
    }

    /// Appends a record; it is durable when this answers. After an error the journal must be opened again.
    pub fn append(&mut self, Record(mut record): Record) -> Result<(), StoreError> {
        let rows = u32::try_from(record.len() - RECORD_HEADER).expect("transactions of the journal are small");
        record[CHECKSUM..CHECKSUM + 4].copy_from_slice(&rows.to_be_bytes());
        record[CHECKSUM + 4..RECORD_HEADER].copy_from_slice(&(self.number + 1).to_be_bytes());
        let checksum = self.secret.checksum(&record[CHECKSUM..]);
        record[..CHECKSUM].copy_from_slice(&checksum);
        // Whole pages: the system need not read what it overwrites.
        record.resize(record.len().next_multiple_of(PAGE), 0);
        let at = PAGE as u64 + self.half * self.half_bytes + self.at;
        assert!(self.at + record.len() as u64 <= self.half_bytes, "the writer looks for room first");
        self.put(at, &record)?;
        self.at += record.len() as u64;
        self.number += 1;
        Ok(())
    }

    /// The number of the last record.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Goes on in the other half, which has been folded.
    pub fn turn(&mut self) {
        self.half = 1 - self.half;
        self.at = 0;
    }

    /// All of it has been folded: begins anew.
    pub fn restart(&mut self) {
        self.half = 0;
        self.at = 0;
    }

    /// Gives the space back; all of it has been folded.
    pub fn shrink(&mut self) -> Result<(), StoreError> {
        self.restart();
        self.file.set_len(PAGE as u64).map_err(|error| error::io("shortening", &self.place, error))
    }
}
