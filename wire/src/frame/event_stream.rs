//! AWS event stream: binary messages with headers and two checksums.
//!
//! No payload is believed before its checksum: a message that comes in pieces is collected, up to
//! a bound. What is longer goes on as it comes, and the whole stream is given up where the
//! checksum then differs.

use crc32fast::Hasher;

use super::{NotUnderstood, Pieces};

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;
/// The format's own limit.
const MAX_MESSAGE: usize = 24 << 20;
/// Messages up to this length are collected before they are read.
const MAX_COLLECTED: usize = 64 << 10;
/// Room for the next message that comes in pieces: most are smaller.
const KEPT_ROOM: usize = 1 << 10;
/// Bedrock's headers have about 100 bytes.
const MAX_HEADERS: usize = 32 << 10;

/// Cuts the messages of an event stream.
#[derive(Debug, Default)]
pub struct EventStream {
    /// The beginning of a message that is not whole yet.
    collected: Vec<u8>,
    large: Option<Large>,
}

/// A message too long to collect, after its headers.
#[derive(Debug)]
struct Large {
    hasher: Hasher,
    /// What is still to come of its payload.
    payload: usize,
    checksum: [u8; CHECKSUM],
    /// How much of the checksum has come.
    seen: usize,
}

struct Prelude {
    total: usize,
    headers: usize,
}

// === impl EventStream ===

impl EventStream {
    /// Whether the stream stands between two messages.
    pub fn between(&self) -> bool {
        self.collected.is_empty() && self.large.is_none()
    }

    /// Cuts on.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        pieces: &mut impl Pieces,
    ) -> Result<(), NotUnderstood> {
        while !bytes.is_empty() {
            let used = match &mut self.large {
                Some(large) => {
                    let used = large.feed(bytes, pieces)?;
                    if large.seen == CHECKSUM {
                        self.large = None;
                        pieces.end();
                    }
                    used
                }
                None if self.collected.is_empty() => self.message_in(bytes, pieces)?,
                None => self.collect(bytes, pieces)?,
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Reads a message where it lies, or begins to collect it.
    fn message_in(
        &mut self,
        bytes: &[u8],
        pieces: &mut impl Pieces,
    ) -> Result<usize, NotUnderstood> {
        if let Some(prelude) = Prelude::read(bytes)?
            && prelude.is_collected()
            && bytes.len() >= prelude.total
        {
            message(&bytes[..prelude.total], &prelude, pieces)?;
            return Ok(prelude.total);
        }
        self.collect(bytes, pieces)
    }

    fn collect(&mut self, bytes: &[u8], pieces: &mut impl Pieces) -> Result<usize, NotUnderstood> {
        let Some(prelude) = Prelude::read(&self.collected)? else {
            let used = self.take(bytes, PRELUDE);
            // A wrong one is seen at its last byte, even if nothing comes after it.
            Prelude::read(&self.collected)?;
            return Ok(used);
        };
        let wanted = if prelude.is_collected() { prelude.total } else { PRELUDE + prelude.headers };
        let used = self.take(bytes, wanted);
        if self.collected.len() < wanted {
            return Ok(used);
        }
        if prelude.is_collected() {
            message(&self.collected, &prelude, pieces)?;
        } else {
            headers(&self.collected[PRELUDE..], pieces)?;
            self.large = Some(Large::new(&self.collected, &prelude));
        }
        self.collected.clear();
        self.collected.shrink_to(KEPT_ROOM);
        Ok(used)
    }

    fn take(&mut self, bytes: &[u8], wanted: usize) -> usize {
        let length = self.collected.len();
        let missing = (wanted - length).min(bytes.len());
        if self.collected.capacity() < length + missing {
            // Never more than the message wants, and never all of it before it comes.
            let room = wanted.min((2 * length).max(KEPT_ROOM)).max(length + missing);
            self.collected.reserve_exact(room - length);
        }
        self.collected.extend_from_slice(&bytes[..missing]);
        missing
    }
}

// === impl Prelude ===

impl Prelude {
    /// The lengths that a message begins with, once its first 12 bytes are there.
    fn read(bytes: &[u8]) -> Result<Option<Self>, NotUnderstood> {
        if bytes.len() < PRELUDE {
            return Ok(None);
        }
        if crc32fast::hash(&bytes[..8]) != number(&bytes[8..]) {
            return Err(NotUnderstood::BadChecksum);
        }
        let (total, headers) = (number(bytes) as usize, number(&bytes[4..]) as usize);
        if total > MAX_MESSAGE || headers > MAX_HEADERS {
            return Err(NotUnderstood::FrameTooLarge);
        }
        if total < PRELUDE + headers + CHECKSUM {
            return Err(NotUnderstood::BadFrame);
        }
        Ok(Some(Self { total, headers }))
    }

    fn is_collected(&self) -> bool {
        self.total <= MAX_COLLECTED
    }
}

// === impl Large ===

impl Large {
    fn new(begun: &[u8], prelude: &Prelude) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(begun);
        let payload = prelude.total - begun.len() - CHECKSUM;
        Self { hasher, payload, checksum: [0; CHECKSUM], seen: 0 }
    }

    fn feed(&mut self, bytes: &[u8], pieces: &mut impl Pieces) -> Result<usize, NotUnderstood> {
        if self.payload > 0 {
            let payload = &bytes[..bytes.len().min(self.payload)];
            self.hasher.update(payload);
            pieces.payload(payload);
            self.payload -= payload.len();
            return Ok(payload.len());
        }
        self.checksum[self.seen] = bytes[0];
        self.seen += 1;
        if self.seen == CHECKSUM && self.hasher.clone().finalize() != number(&self.checksum) {
            return Err(NotUnderstood::BadChecksum);
        }
        Ok(1)
    }
}

fn message(bytes: &[u8], prelude: &Prelude, pieces: &mut impl Pieces) -> Result<(), NotUnderstood> {
    let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if crc32fast::hash(body) != number(checksum) {
        return Err(NotUnderstood::BadChecksum);
    }
    let (head, payload) = body.split_at(PRELUDE + prelude.headers);
    headers(&head[PRELUDE..], pieces)?;
    pieces.payload(payload);
    pieces.end();
    Ok(())
}

fn headers(mut bytes: &[u8], pieces: &mut impl Pieces) -> Result<(), NotUnderstood> {
    while !bytes.is_empty() {
        let name = take_short(&mut bytes)?;
        if name.is_empty() {
            return Err(NotUnderstood::BadFrame);
        }
        match take(&mut bytes, 1)?[0] {
            0 | 1 => {}
            2 => drop(take(&mut bytes, 1)?),
            3 => drop(take(&mut bytes, 2)?),
            4 => drop(take(&mut bytes, 4)?),
            5 | 8 => drop(take(&mut bytes, 8)?),
            6 => drop(take_long(&mut bytes)?),
            7 => pieces.header(name, take_long(&mut bytes)?),
            9 => drop(take(&mut bytes, 16)?),
            _ => return Err(NotUnderstood::BadFrame),
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], NotUnderstood> {
    bytes.split_off(..length).ok_or(NotUnderstood::BadFrame)
}

fn take_short<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], NotUnderstood> {
    let length = take(bytes, 1)?[0];
    take(bytes, usize::from(length))
}

fn take_long<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], NotUnderstood> {
    let length = take(bytes, 2)?;
    take(bytes, usize::from(u16::from_be_bytes([length[0], length[1]])))
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests;
