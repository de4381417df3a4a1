//! Reads a pack stream from end to end without keeping it, so that a small pack that inflates to something huge, or
//! a delta that promises to, is refused before libgit2 allocates for it.

use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

use super::{PackBudget, PackError};

const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;
const TRAILER: usize = 20;

/// Counts objects and inflated bytes, deltas by what they expand to.
pub(super) fn measure(pack: &[u8], budget: &PackBudget) -> Result<(), PackError> {
    let mut left = Left { budget: *budget, bytes: budget.inflated };
    let header = pack.get(..12).ok_or(malformed("it is shorter than its header"))?;
    if header[..8] != *b"PACK\0\0\0\x02" {
        return Err(malformed("it is not a pack of version 2"));
    }
    let count = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    if count > budget.objects {
        return Err(PackError::TooLarge { limit: u64::from(budget.objects), unit: "objects" });
    }
    let body = pack.len().checked_sub(TRAILER).ok_or(malformed("it is shorter than its trailer"))?;
    let mut rest = pack.get(12..body).ok_or(malformed("it is shorter than its header"))?;
    for _ in 0..count {
        object(&mut rest, &mut left)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(malformed("bytes follow the last object")) }
}

struct Left {
    budget: PackBudget,
    bytes: u64,
}

impl Left {
    fn take(&mut self, bytes: u64) -> Result<(), PackError> {
        let too_large = PackError::TooLarge { limit: self.budget.inflated, unit: "bytes" };
        self.bytes = self.bytes.checked_sub(bytes).ok_or(too_large)?;
        Ok(())
    }
}

fn object(rest: &mut &[u8], left: &mut Left) -> Result<(), PackError> {
    let first = byte(rest)?;
    let kind = (first >> 4) & 7;
    let mut size = u64::from(first & 15);
    if first & 0x80 != 0 {
        size |= varint(rest, 4)?;
    }
    match kind {
        1..=4 => {}
        OFS_DELTA => while byte(rest)? & 0x80 != 0 {},
        REF_DELTA => *rest = rest.get(20..).ok_or(malformed("a delta's base is cut off"))?,
        _ => return Err(malformed("an object has an unknown type")),
    }
    left.take(size)?;
    let (head, consumed) = inflate(rest, size)?;
    *rest = &rest[consumed..];
    if matches!(kind, OFS_DELTA | REF_DELTA) {
        let mut head = head.as_slice();
        varint(&mut head, 0)?;
        left.take(varint(&mut head, 0)?)?;
    }
    Ok(())
}

/// Inflates one stream, which must give exactly `size` bytes; keeps the first few.
fn inflate(bytes: &[u8], size: u64) -> Result<(Vec<u8>, usize), PackError> {
    let mut decoder = ZlibDecoder::new(bytes);
    let mut head = Vec::new();
    let mut buffer = [0; 1 << 14];
    loop {
        let read = decoder.read(&mut buffer).map_err(|_| malformed("an object does not inflate"))?;
        if decoder.total_out() > size || (read == 0 && decoder.total_out() != size) {
            return Err(malformed("an object has another size than it says"));
        }
        if read == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..read.min(24_usize.saturating_sub(head.len()))]);
    }
    let consumed = usize::try_from(decoder.total_in()).map_err(|_| malformed("an object is too long"))?;
    Ok((head, consumed))
}

fn byte(rest: &mut &[u8]) -> Result<u8, PackError> {
    let (first, tail) = rest.split_first().ok_or(malformed("it is cut off"))?;
    *rest = tail;
    Ok(*first)
}

/// Seven bits a byte, the lowest first, starting at bit `shift`.
fn varint(rest: &mut &[u8], mut shift: u32) -> Result<u64, PackError> {
    let mut value = 0_u64;
    loop {
        let next = byte(rest)?;
        if shift > 56 {
            return Err(malformed("a number is too long"));
        }
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
        shift += 7;
    }
}

const fn malformed(why: &'static str) -> PackError {
    PackError::Malformed { why }
}
