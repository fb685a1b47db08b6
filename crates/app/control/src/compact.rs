//! Batches in few bytes, for the journal: numbers of seven bits a byte, buckets by their distance.
//! A second of a thousand requests takes about two kilobytes.

use switchback_analysis::{ArmBatch, Batch};
use switchback_domain::histogram::{BUCKETS, bucket_of};
use switchback_domain::{Histogram, Timestamp, Weight};

/// Writes batches down.
pub(crate) fn encode(batches: &[Batch]) -> Vec<u8> {
    let mut to = Vec::new();
    put(&mut to, batches.len() as u64);
    let mut source = "";
    for batch in batches {
        // An empty name says: the same as before.
        let name = if batch.source == source { "" } else { batch.source.as_str() };
        put(&mut to, name.len() as u64);
        to.extend_from_slice(name.as_bytes());
        source = &batch.source;
        put(&mut to, batch.at.as_millis());
        put(&mut to, batch.sequence);
        put(&mut to, u64::from(batch.weight.basis_points()));
        put_arm(&mut to, &batch.candidate);
        put_arm(&mut to, &batch.baseline);
    }
    to
}

fn put_arm(to: &mut Vec<u8>, arm: &ArmBatch) {
    for number in [arm.unanswered, arm.unfinished, arm.failed_answers, arm.events] {
        put(to, number);
    }
    put(to, arm.latency.buckets().count() as u64);
    let mut last = 0;
    for (upper, count) in arm.latency.buckets() {
        let bucket = bucket_of(upper) as u64;
        put(to, bucket - last);
        put(to, count);
        last = bucket;
    }
}

fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.extend(u8::try_from(number & 0x7f).map(|low| low | 0x80));
        number >>= 7;
    }
    to.extend(u8::try_from(number));
}

/// Reads them back; `None` if no journal of ours has written this.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Batch>> {
    let mut from = Bytes(bytes);
    let count = from.number()?;
    let mut batches: Vec<Batch> = Vec::new();
    for _ in 0..count {
        let source = match from.text()? {
            "" => batches.last().map(|last| last.source.clone()).unwrap_or_default(),
            name => name.to_owned(),
        };
        batches.push(Batch {
            at: Timestamp::from_millis(from.number()?),
            source,
            sequence: from.number()?,
            weight: Weight::from_basis_points(u16::try_from(from.number()?).ok()?).ok()?,
            candidate: from.arm()?,
            baseline: from.arm()?,
        });
    }
    from.0.is_empty().then_some(batches)
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn arm(&mut self) -> Option<ArmBatch> {
        let (unanswered, unfinished) = (self.number()?, self.number()?);
        let (failed_answers, events) = (self.number()?, self.number()?);
        let mut counts = [0_u64; BUCKETS];
        let mut bucket = 0_usize;
        for _ in 0..self.number()? {
            bucket = bucket.checked_add(usize::try_from(self.number()?).ok()?)?;
            *counts.get_mut(bucket)? = self.number()?;
        }
        let latency = Histogram::from_dense(counts);
        Some(ArmBatch { unanswered, unfinished, latency, failed_answers, events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches() -> Vec<Batch> {
        let arm = |seed: u64| {
            let mut latency = Histogram::default();
            (0..seed * 10).for_each(|step| latency.record(step * step * 37));
            ArmBatch {
                unanswered: seed,
                unfinished: 0,
                latency,
                failed_answers: 3,
                events: 1 << 40,
            }
        };
        let batch = |(sequence, source): (u64, &str)| Batch {
            at: Timestamp::from_millis(1_700_000_000_000 + sequence * 100),
            source: source.to_owned(),
            sequence,
            weight: Weight::from_percent(5),
            candidate: arm(sequence),
            baseline: ArmBatch::default(),
        };
        [(1, "one"), (2, "one"), (1, "other")].map(batch).to_vec()
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(decode(&encode(&batches())), Some(batches()));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
    }

    #[test]
    fn what_was_damaged_is_refused_and_never_a_panic() {
        let bytes = encode(&batches());
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            let _ = decode(&damaged);
        }
        assert_eq!(decode(&[0xff; 64]), None);
    }
}
