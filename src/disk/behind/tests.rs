#![expect(
    clippy::disallowed_methods,
    reason = "the file under test is for threads, and measures their time"
)]

use super::*;
use crate::error::{ErrorKind, Posix};
use crate::sync::atomic::{AtomicU32, Ordering};

const SILENT: Duration = Duration::from_millis(300);

/// A file in memory that waits at `gate` and fails while `failing`.
#[derive(Debug, Default)]
struct Slow {
    bytes: Mutex<Vec<u8>>,
    gate: Mutex<()>,
    failing: Mutex<Option<Posix>>,
    writes: AtomicU32,
    batches: AtomicU32,
}

impl Slow {
    fn pass(&self) -> Result<MutexGuard<'_, Vec<u8>>> {
        drop(self.gate.lock().unwrap());
        match *self.failing.lock().unwrap() {
            Some(posix) => Err(posix.into()),
            None => Ok(self.bytes.lock().unwrap()),
        }
    }
}

impl DiskFile for Slow {
    fn len(&self) -> Result<u64> {
        Ok(self.pass()?.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.pass()?[start..start + buffer.len()]);
        Ok(())
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let start = usize::try_from(offset).unwrap();
        let bytes = self.bytes.lock().unwrap();
        bytes.get(start..start + buffer.len()).is_some_and(|found| {
            buffer.copy_from_slice(found);
            true
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap();
        let mut bytes = self.pass()?;
        let end = bytes.len().max(start + data.len());
        bytes.resize(end, 0);
        bytes[start..start + data.len()].copy_from_slice(data);
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write_many(&self, parts: Vec<(u64, Bytes)>) -> Result<()> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        parts.iter().try_for_each(|(offset, data)| self.write(*offset, data))
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.pass()?.resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.pass().map(drop)
    }
}

fn behind() -> (Arc<Slow>, BehindFile) {
    let slow = Arc::new(Slow::default());
    let file = BehindFile::start("t", slow.clone(), SILENT).unwrap();
    (slow, file)
}

#[test]
fn calls_keep_their_order() {
    let (slow, file) = behind();
    file.set_len(4).unwrap();
    for round in 0..100_u8 {
        file.write(1, &[round; 2]).unwrap();
        let mut found = [9; 4];
        file.read(0, &mut found).unwrap();
        assert_eq!(found, [0, round, round, 0]);
    }
    file.write(4, b"xy").unwrap();
    assert_eq!(file.len().unwrap(), 6);
    file.set_len(5).unwrap();
    file.sync_data().unwrap();
    assert_eq!(*slow.bytes.lock().unwrap(), [0, 99, 99, 0, b'x']);
}

#[test]
fn writers_go_on_while_the_device_is_busy() {
    let (slow, file) = behind();
    file.set_len(8).unwrap();
    let gate = slow.gate.lock().unwrap();
    file.write(0, b"ab").unwrap();
    file.write(4, b"cd").unwrap();
    // What no write touches is read past them.
    let mut found = [9; 2];
    file.read(2, &mut found).unwrap();
    assert_eq!(found, [0, 0]);
    assert_eq!(slow.writes.load(Ordering::SeqCst), 0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut found = [9; 3];
            file.read(3, &mut found).map(|()| found)
        });
        std::thread::sleep(SILENT / 10);
        assert!(!reader.is_finished(), "it waits for what was written there");
        drop(gate);
        assert_eq!(reader.join().unwrap().unwrap(), *b"\0cd");
    });
    file.sync_data().unwrap();
    assert_eq!(*slow.bytes.lock().unwrap(), *b"ab\0\0cd\0\0");
}

#[test]
fn what_waits_is_bounded() {
    let (slow, file) = behind();
    let gate = slow.gate.lock().unwrap();
    let data = vec![1; QUEUE_BYTES / 2];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..4).try_for_each(|_| file.write(0, &data)));
        std::thread::sleep(SILENT / 3);
        assert!(!writer.is_finished() && slow.writes.load(Ordering::SeqCst) == 0);
        drop(gate);
        writer.join().unwrap().unwrap();
    });
    file.sync_data().unwrap();
    assert_eq!(slow.writes.load(Ordering::SeqCst), 4);
}

#[test]
fn a_write_that_fails_is_told_by_all_later_calls() {
    let (slow, file) = behind();
    *slow.failing.lock().unwrap() = Some(Posix::NoSpace);
    file.write(0, b"ab").unwrap();
    assert!(file.sync_data().unwrap_err().is(Posix::NoSpace));
    *slow.failing.lock().unwrap() = None;
    assert!(file.sync_data().unwrap_err().is(Posix::NoSpace));
    assert!(file.write(0, b"ab").unwrap_err().is(Posix::NoSpace));
    assert!(file.read(0, &mut [0; 1]).unwrap_err().is(Posix::NoSpace));
    // A call that was asked for fails for itself.
    let (slow, file) = behind();
    *slow.failing.lock().unwrap() = Some(Posix::NoSpace);
    assert!(file.set_len(5).unwrap_err().is(Posix::NoSpace));
    *slow.failing.lock().unwrap() = None;
    file.set_len(5).unwrap();
}

#[test]
fn a_device_that_is_silent_holds_up_nobody_for_longer_than_that() {
    let (slow, file) = behind();
    let gate = slow.gate.lock().unwrap();
    file.write(0, b"ab").unwrap();
    let began = Instant::now();
    let error = file.sync_data().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no answer for 300ms"), "{error}");
    assert!(began.elapsed() >= SILENT && began.elapsed() < SILENT * 5);
    file.write(0, b"cd").unwrap_err();
    file.read(0, &mut [0; 1]).unwrap_err();
    assert!(began.elapsed() < SILENT * 5, "the first one waited for all");
    drop(gate);
    // It is silent no longer; nobody relies on it all the same.
    file.sync_data().unwrap_err();
    // Nobody waits for its thread either, which ends once it can.
    drop(file);
    while Arc::strong_count(&slow) > 1 {
        std::thread::sleep(SILENT / 100);
    }
    assert_eq!(
        *slow.bytes.lock().unwrap(),
        *b"ab",
        "what waited behind the silent call was dropped"
    );
}

#[test]
fn who_waits_for_room_on_a_silent_device_gets_an_error() {
    let (slow, file) = behind();
    let gate = slow.gate.lock().unwrap();
    let data = vec![1; QUEUE_BYTES];
    file.write(0, &data).unwrap();
    assert_eq!(file.write(0, &data).unwrap_err().kind(), ErrorKind::Unavailable);
    drop(gate);
}

#[test]
fn what_was_not_synced_may_go_when_the_file_is_dropped() {
    let (slow, file) = behind();
    let gate = slow.gate.lock().unwrap();
    file.write(0, b"ab").unwrap();
    while file.shared.lock().running.is_none() {
        std::thread::sleep(SILENT / 100);
    }
    (0..10).for_each(|_| file.write(0, b"ab").unwrap());
    let dropper = std::thread::spawn(move || drop(file));
    std::thread::sleep(SILENT / 10);
    assert!(!dropper.is_finished(), "the call under way is waited for");
    drop(gate);
    dropper.join().unwrap();
    assert!(slow.writes.load(Ordering::SeqCst) <= 1);
}

#[test]
fn writes_that_wait_go_together_and_in_order() {
    let (slow, file) = behind();
    let gate = slow.gate.lock().unwrap();
    file.write(0, b"first").unwrap();
    while file.shared.lock().running.is_none() {
        std::thread::sleep(SILENT / 100);
    }
    (0..4u8).for_each(|number| file.write(number.into(), &[b'0' + number; 2]).unwrap());
    assert_eq!(file.shared.lock().waiting.len(), 4);
    drop(gate);
    file.sync_data().unwrap();
    assert_eq!(*slow.bytes.lock().unwrap(), *b"01233");
    assert_eq!(slow.batches.load(Ordering::SeqCst), 2);
}
