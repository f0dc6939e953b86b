//! One frame: header, chained part, payload area; writing it and reading it back.
//!
//! ```text
//! 0   magic "HPJ1"            4
//! 4   CRC-32 of all the rest  4   little endian, as all numbers here
//! 8   length of chained part  4
//! 12  length of payload area  4
//! 16  seq that was durable when this frame's batch was written  8
//! 24  chain hash: SHA-256(previous chain hash, chained part)   32
//! 56  chained part: {"at":…,"event":…,"payloads":[…],"prev":…,"seq":…}
//!     payload area: the sealed payloads, one after the other
//! ```
//! The chain covers the payloads by their digests only, so that they can be removed later without
//! breaking it: then the payload area is empty. The `durable` number tells a torn batch (frames after a bad one were never
//! acknowledged) from damage in the middle (a later batch proves that the bad one had been synced).

use aws_lc_rs::digest as sha;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::call::{Digest, Timestamp};

use super::Render;
use super::seal::Sealed;

pub(super) const MAGIC: &[u8; 4] = b"HPJ1";
pub(super) const HEADER: usize = 56;
/// What the first frame of the first segment chains to.
pub(super) const GENESIS: Digest = Digest::from_bytes([0; 32]);

/// What the chained part says about one payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadMeta {
    /// SHA-256 of the bytes before sealing.
    pub digest: Digest,
    /// Their length before sealing.
    pub len: u64,
    /// SHA-256 of the sealed bytes, so that a check needs no key.
    pub sealed: Digest,
    /// Length of the sealed bytes.
    pub sealed_len: u64,
}

/// One frame as read back, every check passed.
#[derive(Debug)]
pub struct Frame {
    /// Its number; no gaps.
    pub seq: u64,
    /// Store time of the step.
    pub at: Timestamp,
    /// Chain hash of the frame before.
    pub prev: Digest,
    /// Its own chain hash.
    pub hash: Digest,
    /// What its payload area holds.
    pub payloads: Vec<PayloadMeta>,
    /// The event as JSON.
    pub event: Box<RawValue>,
    /// Where it begins in its segment.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
}

#[derive(Deserialize)]
struct ChainedIn {
    at: Timestamp,
    event: Box<RawValue>,
    payloads: Vec<PayloadMeta>,
    prev: Digest,
    seq: u64,
}

/// The fixed part in front of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) crc: u32,
    pub(super) chained: usize,
    pub(super) payloads: usize,
    pub(super) durable: u64,
    pub(super) hash: Digest,
}

impl Header {
    /// `None` when these bytes do not begin a frame.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != MAGIC {
            return None;
        }
        Some(Self {
            crc: u32_at(bytes, 4)?,
            chained: usize::try_from(u32_at(bytes, 8)?).ok()?,
            payloads: usize::try_from(u32_at(bytes, 12)?).ok()?,
            durable: u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
            hash: Digest::from_bytes(bytes.get(24..HEADER)?.try_into().ok()?),
        })
    }

    /// Length of the whole frame.
    pub(super) fn total(&self) -> usize {
        HEADER.saturating_add(self.chained).saturating_add(self.payloads)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn crc_of(frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(frame.get(..4).unwrap_or_default());
    crc.update(frame.get(8..).unwrap_or_default());
    crc.finalize()
}

/// The chain hash of a frame.
pub(super) fn chain(prev: &Digest, chained: &[u8]) -> Digest {
    let mut context = sha::Context::new(&sha::SHA256);
    context.update(prev.as_bytes());
    context.update(chained);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Digest::from_bytes(out)
}

/// What a frame is made of.
pub(super) struct Draft<'a> {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) prev: Digest,
    pub(super) durable: u64,
    pub(super) event: Render,
    pub(super) payloads: &'a [Sealed],
}

impl Draft<'_> {
    /// The chained part, in canonical order; straight into the batch, since every record passes here.
    fn chained(self, out: &mut Vec<u8>) -> Result<(), String> {
        fn json(out: &mut Vec<u8>, before: &str, value: &impl Serialize) -> Result<(), String> {
            out.extend_from_slice(before.as_bytes());
            serde_json::to_writer(out, value).map_err(|e| e.to_string())
        }
        json(out, "{\"at\":", &self.at)?;
        out.extend_from_slice(b",\"event\":");
        (self.event)(out)?;
        json(out, ",\"payloads\":", &self.payloads.iter().map(|p| &p.meta).collect::<Vec<_>>())?;
        json(out, ",\"prev\":", &self.prev)?;
        json(out, ",\"seq\":", &self.seq)?;
        out.push(b'}');
        Ok(())
    }
}

/// Appends the frame to `out` and returns its chain hash.
pub(super) fn encode(draft: Draft<'_>, out: &mut Vec<u8>) -> Result<Digest, String> {
    let length = |n: usize| u32::try_from(n).map_err(|_| "a frame is longer than 4 GiB".to_owned());
    let (start, prev, durable, payloads) = (out.len(), draft.prev, draft.durable, draft.payloads);
    out.resize(start + HEADER, 0);
    draft.chained(out)?;
    let chained = out.get(start + HEADER..).unwrap_or_default();
    let (hash, chained) = (chain(&prev, chained), length(chained.len())?);
    payloads.iter().for_each(|p| out.extend_from_slice(&p.bytes));
    let area = length(payloads.iter().map(|p| p.bytes.len()).sum())?;
    let frame = out.get_mut(start..).unwrap_or_default();
    seal_header(frame, chained, area, durable, &hash);
    Ok(hash)
}

/// Fills in the header of a whole frame, checksum and all.
fn seal_header(frame: &mut [u8], chained: u32, area: u32, durable: u64, hash: &Digest) {
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = frame.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(0, MAGIC);
    put(8, &chained.to_le_bytes());
    put(12, &area.to_le_bytes());
    put(16, &durable.to_le_bytes());
    put(24, hash.as_bytes());
    let crc = crc_of(frame);
    if let Some(field) = frame.get_mut(4..8) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// The same frame without its payloads: the chain covers them by digest only.
pub(super) fn stripped(bytes: &[u8]) -> Result<Vec<u8>, Flaw> {
    let (header, frame) = intact(bytes)?;
    let mut out = frame.get(..HEADER + header.chained).unwrap_or_default().to_vec();
    let chained = u32::try_from(header.chained).unwrap_or(u32::MAX);
    seal_header(&mut out, chained, 0, header.durable, &header.hash);
    Ok(out)
}

/// Why bytes are no valid frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Incomplete, or the checksum does not match: what a torn write looks like.
    Damaged(String),
    /// Whole, but not what the chain says comes here.
    Forged(String),
}

/// The whole bytes of the frame at the front of `bytes`, if it is complete and its checksum matches.
pub(super) fn intact(bytes: &[u8]) -> Result<(Header, &[u8]), Flaw> {
    let damaged = |what: &str| Flaw::Damaged(what.to_owned());
    let header = Header::parse(bytes).ok_or_else(|| damaged("no frame header"))?;
    let frame = bytes.get(..header.total()).ok_or_else(|| damaged("the frame is incomplete"))?;
    if crc_of(frame) != header.crc {
        return Err(damaged("the checksum does not match"));
    }
    Ok((header, frame))
}

/// Reads the frame at the front of `bytes`. `offset` is only recorded.
pub(super) fn decode(bytes: &[u8], offset: u64) -> Result<Frame, Flaw> {
    let forged = |what: String| Flaw::Forged(what);
    let (header, frame) = intact(bytes)?;
    let chained = frame.get(HEADER..HEADER + header.chained).unwrap_or_default();
    let area = frame.get(HEADER + header.chained..).unwrap_or_default();
    let parts: ChainedIn =
        serde_json::from_slice(chained).map_err(|e| forged(format!("the record cannot be read: {e}")))?;
    if chain(&parts.prev, chained) != header.hash {
        return Err(forged("the chain hash does not match the record".to_owned()));
    }
    check_payloads(&parts.payloads, area).map_err(forged)?;
    Ok(Frame {
        seq: parts.seq,
        at: parts.at,
        prev: parts.prev,
        hash: header.hash,
        payloads: parts.payloads,
        event: parts.event,
        offset,
        size: u64::try_from(frame.len()).unwrap_or(u64::MAX),
    })
}

/// The sealed bytes of payload `index` in a payload area.
pub(super) fn slice<'a>(metas: &[PayloadMeta], area: &'a [u8], index: usize) -> Option<&'a [u8]> {
    let before: u64 = metas.iter().take(index).map(|m| m.sealed_len).sum();
    let start = usize::try_from(before).ok()?;
    let len = usize::try_from(metas.get(index)?.sealed_len).ok()?;
    area.get(start..start.checked_add(len)?)
}

/// All payloads are there and right, or all were removed.
fn check_payloads(metas: &[PayloadMeta], area: &[u8]) -> Result<(), String> {
    if area.is_empty() {
        return Ok(());
    }
    for (index, meta) in metas.iter().enumerate() {
        let bytes = slice(metas, area, index).ok_or_else(|| format!("payload {index} is cut"))?;
        if Digest::of(bytes) != meta.sealed {
            return Err(format!("payload {index} does not match its digest"));
        }
    }
    let total: u64 = metas.iter().map(|m| m.sealed_len).sum();
    if usize::try_from(total).ok() == Some(area.len()) {
        Ok(())
    } else {
        Err("the payload area is longer than its payloads".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::seal::Sealer;

    fn sample() -> Vec<u8> {
        let sealed = Sealer::new(&[7; 32]).unwrap().seal("secret").unwrap();
        let event: Render = Box::new(|out| {
            out.extend_from_slice(br#"{"type":"x"}"#);
            Ok(())
        });
        let mut out = Vec::new();
        let draft =
            Draft { seq: 3, at: Timestamp::from_millis(5), prev: GENESIS, durable: 2, event, payloads: &[sealed] };
        encode(draft, &mut out).unwrap();
        out
    }

    #[test]
    fn a_frame_reads_back() {
        let bytes = sample();
        let frame = decode(&bytes, 9).unwrap();
        assert_eq!((frame.seq, frame.offset, frame.size), (3, 9, bytes.len() as u64));
        assert_eq!(frame.event.get(), r#"{"type":"x"}"#);
        assert_eq!(frame.payloads[0].len, 6);
    }

    #[test]
    fn a_frame_without_its_payloads_keeps_its_hash() {
        let bytes = sample();
        let frame = decode(&stripped(&bytes).unwrap(), 0).unwrap();
        assert_eq!(frame.hash, decode(&bytes, 0).unwrap().hash);
        assert!(frame.payloads.len() == 1 && frame.size < bytes.len() as u64);
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let bytes = sample();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(decode(&bad, 0).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let bytes = sample();
        (0..bytes.len()).for_each(|at| assert!(decode(&bytes[..at], 0).is_err(), "cut at {at}"));
    }

    #[test]
    fn the_envelope_has_its_members_in_canonical_order() {
        let bytes = sample();
        let header = Header::parse(&bytes).unwrap();
        let chained: serde_json::Value = serde_json::from_slice(&bytes[HEADER..HEADER + header.chained]).unwrap();
        assert_eq!(crate::call::canonical(&chained), bytes[HEADER..HEADER + header.chained]);
    }
}
