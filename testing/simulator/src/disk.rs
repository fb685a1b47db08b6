//! The disk and the journal on it: a log of checksummed frames with a synced part and a tail that
//! a crash may lose, keep or tear. The hash chain is the real one of `switchback_ports`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchback_domain::{Epoch, Timestamp};
use switchback_ports::journal::chain::{self, GENESIS};
use switchback_ports::journal::{Error, Journal, NewRecord, Record, Sequence, Snapshot};

use crate::faults::{Dice, Fault};
use crate::random::Random;

/// What is on the disk.
#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    /// So many bytes survive a crash for certain.
    synced: usize,
    /// The life whose writes end here: it died amid one.
    died: Option<u64>,
    crash_at: Option<CrashAt>,
    /// The newest life that ever began.
    epoch: Epoch,
    /// Records whose writer was told that they are there.
    acknowledged: usize,
    /// Records read as if a newer build had written them.
    is_newer: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CrashAt {
    BeforeWrite,
    BeforeSync,
    AfterSync,
}

/// The disk; a clone is the same one.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    dice: Dice,
}

impl Disk {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { platter: Arc::default(), dice }
    }

    fn get(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a life died amid a write since this was last asked.
    pub(crate) fn take_death(&self) -> Option<u64> {
        self.get().died.take()
    }

    /// How many records somebody was told to be written.
    pub(crate) fn acknowledged(&self) -> usize {
        self.get().acknowledged
    }

    /// The newest life that began, if it came so far.
    pub(crate) fn epoch(&self) -> Epoch {
        self.get().epoch
    }

    /// What a crash does to what was not synced: some of it is there, the last frame perhaps in
    /// part. Says how many bytes were torn off.
    pub(crate) fn crash(&self, random: &mut Random) -> usize {
        let mut platter = self.get();
        let tail = platter.bytes.len() - platter.synced;
        let kept = match random.between(0, 3) {
            0 => 0,
            1 => tail,
            _ => random.between(0, u32::try_from(tail).unwrap_or(u32::MAX)) as usize,
        };
        let end = platter.synced + kept;
        platter.bytes.truncate(end);
        platter.synced = end;
        tail - kept
    }

    /// How long the log was at each of its moments, from the first.
    pub(crate) fn copies(&self) -> Vec<usize> {
        let platter = self.get();
        let (mut ends, mut index) = (vec![0], Index::default());
        while let Some(end) = index.take_frame(&platter.bytes, ends[ends.len() - 1]) {
            ends.push(end);
        }
        ends
    }

    /// Somebody puts a copy of this length in the log's place.
    pub(crate) fn restore(&self, length: usize) {
        let mut platter = self.get();
        platter.bytes.truncate(length);
        let (index, end) = Index::of(&platter.bytes);
        platter.synced = end;
        (platter.epoch, platter.acknowledged) = (index.epoch, index.records.len());
    }

    /// Has the next readers see records of a newer build, or not any more.
    pub(crate) fn pretend_newer(&self, is_newer: bool) {
        self.get().is_newer = is_newer;
    }

    /// Opens the journal: reads the log up to the first frame that is not whole.
    pub(crate) fn open(&self, life: u64) -> DiskJournal {
        let mut platter = self.get();
        let (index, at) = Index::of(&platter.bytes);
        platter.bytes.truncate(at);
        platter.synced = platter.synced.min(at);
        platter.epoch = index.epoch;
        drop(platter);
        DiskJournal { disk: self.clone(), life, index, dead: false }
    }
}

/// What the log says, as a store keeps it in memory.
#[derive(Debug, Default, Clone)]
struct Index {
    epoch: Epoch,
    records: Vec<Record>,
    snapshots: BTreeMap<String, Snapshot>,
}

const EPOCH: u8 = 1;
const APPEND: u8 = 2;

impl Index {
    /// Reads a log up to the first frame that is not whole; says where that is.
    fn of(bytes: &[u8]) -> (Self, usize) {
        let (mut index, mut at) = (Self::default(), 0);
        while let Some(end) = index.take_frame(bytes, at) {
            at = end;
        }
        (index, at)
    }

    /// Takes in the frame at a place. Says where it ends; `None` if it is not whole.
    fn take_frame(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let mut reader = Reader { bytes, at };
        let (length, sum) = (usize::try_from(reader.number()?).ok()?, reader.number()?);
        let start = reader.at;
        let content = bytes.get(start..start.checked_add(length)?)?;
        if checksum(content) != sum {
            return None;
        }
        let mut reader = Reader { bytes: content, at: 0 };
        match reader.byte()? {
            EPOCH => self.epoch = Epoch(u32::try_from(reader.number()?).ok()?),
            _ => self.take_append(&mut reader)?,
        }
        Some(start + length)
    }

    fn take_append(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let epoch = Epoch(u32::try_from(reader.number()?).ok()?);
        for _ in 0..reader.number()? {
            let (content, hash) = (reader.record()?, reader.text()?);
            let sequence = Sequence(self.records.len() as u64 + 1);
            self.records.push(Record { sequence, epoch, content, hash });
        }
        let last = Sequence(self.records.len() as u64);
        for _ in 0..reader.number()? {
            let snapshot = stamp(reader.snapshot()?, last);
            self.snapshots.insert(snapshot.scope.clone(), snapshot);
        }
        Some(())
    }

    /// The records as they will be written.
    fn link(&self, epoch: Epoch, contents: &[NewRecord]) -> Vec<Record> {
        let mut previous =
            self.records.last().map_or_else(|| GENESIS.to_owned(), |record| record.hash.clone());
        let mut linked = Vec::new();
        for (content, number) in contents.iter().zip(self.records.len() as u64 + 1..) {
            let sequence = Sequence(number);
            let hash = chain::link(&previous, sequence, epoch, content);
            previous.clone_from(&hash);
            linked.push(Record { sequence, epoch, content: content.clone(), hash });
        }
        linked
    }
}

/// The journal as one life of the control plane has it open.
pub(crate) struct DiskJournal {
    disk: Disk,
    life: u64,
    index: Index,
    dead: bool,
}

impl DiskJournal {
    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.index.records.len()
    }

    /// The records after the first so many.
    pub(crate) fn records_after(&self, count: usize) -> Vec<Record> {
        self.index.records.iter().skip(count).cloned().collect()
    }

    fn write(&mut self, content: &[u8]) -> Result<(), Error> {
        if self.dead {
            return Err(Error::failed("append to", "this process is dead"));
        }
        let (life, mut platter) = (self.life, self.disk.get());
        let mut frame = Vec::with_capacity(content.len() + 16);
        put(&mut frame, content.len() as u64);
        put(&mut frame, checksum(content));
        frame.extend(content);
        let crash = platter.crash_at.take();
        if crash != Some(CrashAt::BeforeWrite) {
            platter.bytes.extend(frame);
            if crash != Some(CrashAt::BeforeSync) {
                platter.synced = platter.bytes.len();
            }
        }
        if crash.is_some() {
            (platter.died, self.dead) = (Some(life), true);
            return Err(Error::failed("append to", "this process died"));
        }
        Ok(())
    }

    /// What the log says now, if another life has written to it since.
    fn others(&self) -> Option<Index> {
        let platter = self.disk.get();
        (platter.epoch != self.index.epoch).then(|| Index::of(&platter.bytes).0)
    }

    fn draw_faults(&self) -> Result<bool, Error> {
        let dice = &self.disk.dice;
        if dice.strikes(Fault::CrashAtWrite) {
            let choices = [CrashAt::BeforeWrite, CrashAt::BeforeSync, CrashAt::AfterSync];
            self.disk.get().crash_at = Some(choices[self.index.records.len() % 3]);
        }
        if dice.strikes(Fault::DiskFull) {
            return Err(Error::Full);
        }
        if dice.strikes(Fault::DiskFails) {
            return Err(Error::failed("append to", "input/output error"));
        }
        Ok(dice.strikes(Fault::DiskInDoubt))
    }
}

impl Journal for DiskJournal {
    fn begin_epoch(&mut self) -> Result<Epoch, Error> {
        let next = self.disk.get().epoch.next();
        let mut content = vec![EPOCH];
        put(&mut content, u64::from(next.0));
        self.write(&content)?;
        self.disk.get().epoch = next;
        self.index.epoch = next;
        Ok(next)
    }

    fn append(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
        snapshots: &[Snapshot],
    ) -> Result<Sequence, Error> {
        if !self.dead {
            let current = self.disk.get().epoch;
            if epoch != current {
                return Err(Error::Fenced { given: epoch, current });
            }
        }
        let in_doubt = self.draw_faults()?;
        let records = self.index.link(epoch, records);
        let last = Sequence((self.index.records.len() + records.len()) as u64);
        let mut content = vec![APPEND];
        put(&mut content, u64::from(epoch.0));
        put(&mut content, records.len() as u64);
        for record in &records {
            put_record(&mut content, record);
        }
        put(&mut content, snapshots.len() as u64);
        for snapshot in snapshots {
            put_snapshot(&mut content, snapshot);
        }
        self.write(&content)?;
        self.index.records.extend(records);
        for snapshot in snapshots {
            let stamped = stamp(snapshot.clone(), last);
            self.index.snapshots.insert(stamped.scope.clone(), stamped);
        }
        if in_doubt {
            return Err(Error::failed("append to", "input/output error, after the write"));
        }
        self.disk.get().acknowledged = self.index.records.len();
        Ok(last)
    }

    fn read(
        &self,
        scope: Option<&str>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        let is_newer = self.disk.get().is_newer;
        let others = self.others();
        let later = others
            .as_ref()
            .unwrap_or(&self.index)
            .records
            .iter()
            .skip(usize::try_from(after.0).unwrap_or(usize::MAX));
        let wanted = later.filter(|record| scope.is_none_or(|scope| record.content.scope == scope));
        let mut page: Vec<_> = wanted.take(limit).cloned().collect();
        if scope.is_none() && page.len() < limit {
            // Whoever reads to the end knows what is there.
            let mut platter = self.disk.get();
            platter.acknowledged = platter.acknowledged.max(self.index.records.len());
        }
        if is_newer {
            for record in &mut page {
                record.content.version += 1;
            }
        }
        Ok(page)
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        Ok(self.index.snapshots.values().cloned().collect())
    }

    fn verify(&self) -> Result<u64, Error> {
        let mut previous = GENESIS;
        for record in &self.index.records {
            let hash = chain::link(previous, record.sequence, record.epoch, &record.content);
            if hash != record.hash {
                let why = "its content does not match its hash".to_owned();
                return Err(Error::Damaged { at: record.sequence, why });
            }
            previous = &record.hash;
        }
        Ok(self.index.records.len() as u64)
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(bytes.len() as u64, |sum, word| {
        (sum ^ word).wrapping_mul(0x0100_0000_01B3).rotate_left(29)
    })
}

fn put(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, part: &[u8]) {
    put(bytes, part.len() as u64);
    bytes.extend(part);
}

fn put_record(bytes: &mut Vec<u8>, record: &Record) {
    let (hash, record) = (&record.hash, &record.content);
    put_bytes(bytes, record.scope.as_bytes());
    put_bytes(bytes, record.kind.as_bytes());
    put(bytes, u64::from(record.version));
    put(bytes, record.at.as_millis());
    put(bytes, record.wall_ms);
    put_bytes(bytes, &record.body);
    put_bytes(bytes, &record.consequences);
    put_bytes(bytes, hash.as_bytes());
}

fn stamp(snapshot: Snapshot, last: Sequence) -> Snapshot {
    let sequence = if snapshot.sequence.0 == 0 { last } else { snapshot.sequence };
    Snapshot { sequence, ..snapshot }
}

fn put_snapshot(bytes: &mut Vec<u8>, snapshot: &Snapshot) {
    put_bytes(bytes, snapshot.scope.as_bytes());
    put(bytes, snapshot.sequence.0);
    put(bytes, u64::from(snapshot.version));
    put_bytes(bytes, &snapshot.body);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let part = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(part)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|part| part[0])
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn part(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length).map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.part()?).ok()
    }

    fn record(&mut self) -> Option<NewRecord> {
        Some(NewRecord {
            scope: self.text()?,
            kind: self.text()?,
            version: u16::try_from(self.number()?).ok()?,
            at: Timestamp::from_millis(self.number()?),
            wall_ms: self.number()?,
            body: self.part()?,
            consequences: self.part()?,
        })
    }

    fn snapshot(&mut self) -> Option<Snapshot> {
        let (scope, sequence) = (self.text()?, Sequence(self.number()?));
        let version = u16::try_from(self.number()?).ok()?;
        Some(Snapshot { scope, sequence, version, body: self.part()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use switchback_ports::journal::conformance;

    use super::*;
    use crate::faults::Faults;

    fn calm() -> Disk {
        let mut faults = Faults::draw(0, None);
        faults.end();
        Disk::new(Dice::new(faults))
    }

    #[test]
    fn a_torn_tail_is_left_out_and_the_rest_is_whole() {
        let disk = calm();
        let mut journal = disk.open(1);
        let epoch = journal.begin_epoch().unwrap();
        for number in 1..=3 {
            journal.append(epoch, &[conformance::record("a", number)], &[]).unwrap();
        }
        let whole = disk.get().bytes.len();
        disk.get().crash_at = Some(CrashAt::BeforeSync);
        assert!(journal.append(epoch, &[conformance::record("a", 4)], &[]).is_err());
        for end in [whole + 1, whole + 40] {
            disk.get().bytes.truncate(end.max(whole));
            let reopened = disk.open(2);
            assert_eq!((reopened.len(), reopened.verify().unwrap()), (3, 3));
        }
    }
}
