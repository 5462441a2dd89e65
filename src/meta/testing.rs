//! A log in memory for tests of what lies above the log: applies at once, is always durable.

use crate::class::Class;
use crate::error::Result;
use crate::meta::changes::Changes;
use crate::meta::client::{MetaClient, Views};
use crate::meta::command::{Command, Inode};
use crate::meta::store::{Store, Totals, View};
use crate::meta::{Log, Reply};
use crate::sync::{Arc, Mutex};
use crate::types::{Incarnation, Ino, LogPosition, Timestamp};
use futures_util::future::BoxFuture;

/// A log in memory.
#[derive(Debug)]
pub struct MemLog {
    store: Store,
    order: Mutex<()>,
    changes: Changes,
}

impl MemLog {
    /// An empty state.
    pub fn empty() -> Arc<Self> {
        let store = Store::open(redb::backends::InMemoryBackend::new(), 16 << 20).unwrap();
        Arc::new(Self { store, order: Mutex::default(), changes: Changes::default() })
    }

    /// A formatted volume of `class` whose first mount has begun.
    pub fn formatted(class: &str) -> Arc<Self> {
        let log = Self::empty();
        let class: Class = class.parse().unwrap();
        let time = Timestamp::default();
        log.apply(Command::Genesis { class, uid: 0, gid: 0, time }).unwrap();
        log.apply(Command::StartMount { incarnation: Incarnation(1) }).unwrap();
        log
    }

    /// Applies one command.
    pub fn apply(&self, command: Command) -> Reply {
        self.apply_all(&[command]).pop().unwrap()
    }

    /// The state.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// A client of this log.
    pub fn client(self: &Arc<Self>) -> MetaClient {
        MetaClient::new(self.clone(), self.clone())
    }

    fn apply_all(&self, commands: &[Command]) -> Vec<Reply> {
        let _order = self.order.lock().unwrap();
        // What is applied must survive the stored form.
        let commands: Vec<Command> = commands.iter().map(round_trip).collect();
        let replies = self.store.apply(self.store.applied(), &commands).unwrap();
        commands.iter().for_each(|command| self.changes.note(command));
        replies
    }
}

fn round_trip(command: &Command) -> Command {
    let mut writer = crate::format::Writer::new();
    command.encode(&mut writer);
    let mut reader = crate::format::Reader::new(writer.as_slice());
    let again = Command::decode(&mut reader).unwrap();
    reader.finish().unwrap();
    assert_eq!(again, *command);
    again
}

impl Log for MemLog {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<(Vec<Reply>, LogPosition)>> {
        Box::pin(async move {
            let replies = self.apply_all(&commands);
            Ok((replies, self.store.applied()))
        })
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn durable(&self) -> LogPosition {
        self.store.applied()
    }

    fn applied(&self) -> LogPosition {
        self.store.applied()
    }
}

impl Views for MemLog {
    fn view(&self) -> Result<View> {
        self.store.view()
    }

    fn inode(&self, ino: Ino) -> Result<(Option<Inode>, LogPosition)> {
        self.store.inode(ino)
    }

    fn lookup_inode(&self, parent: Ino, name: &[u8]) -> Result<(Option<Inode>, LogPosition)> {
        self.store.lookup_inode(parent, name)
    }

    fn totals(&self) -> Totals {
        self.store.totals()
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }
}
