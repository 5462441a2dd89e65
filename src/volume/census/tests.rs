use super::*;
use crate::config::Config;
use crate::disk::sim::SimMachine;
use crate::error::Error;
use crate::fs::file::WriteHow;
use crate::fs::namespace::NewFile;
use crate::fs::{AtimeMode, Caller};
use crate::types::{FileKind, ROOT_INO, Timestamp};
use crate::volume::format::{FormatRequest, format_in};
use crate::volume::{OpenDisk, VolumeOptions, World};
use std::path::{Path, PathBuf};

const O_RDWR: i32 = 0o2;

/// A 2+1 volume on three disks with one stripe.
async fn volume() -> Arc<Volume> {
    let machine = SimMachine::new(3, 3);
    let opener = move |path: &Path| -> Result<OpenDisk> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.parse().map_err(|_other| Error::internal("another directory"))?;
        Ok(OpenDisk::from(machine.disk(number)))
    };
    let world = World { opener: Arc::new(opener), inline: true, nodes: None };
    let config = Config::new("census", ["/0", "/1", "/2"].map(PathBuf::from).to_vec());
    let request = FormatRequest {
        config: config.clone(),
        class: "2+1".parse().unwrap(),
        allow_same_device: true,
        uid: 0,
        gid: 0,
        time: Timestamp::default(),
    };
    format_in(request, &world).await.unwrap();
    let options = VolumeOptions {
        read_only: false,
        atime: AtimeMode::Never,
        nodiratime: true,
        clock: Arc::new(|| Timestamp { seconds: 1_700_000_000, nanoseconds: 0 }),
        holder: "a test".to_owned(),
    };
    let volume = Volume::open(&config, options, world).await.unwrap();
    write(&volume, b"a").await;
    volume
}

async fn write(volume: &Volume, name: &[u8]) {
    let fs = volume.fs();
    let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
    let user = Caller { cap_fsetid: true, ..Caller::default() };
    let (made, opened) = fs.create(&user, ROOT_INO, name, new, O_RDWR).await.unwrap();
    let (open, how) = ((made.ino, opened.handle), WriteHow::default());
    fs.write(&user, open, 0, &vec![7; 5 << 20], how).await.unwrap();
    fs.release(made.ino, opened.handle).await.unwrap();
    volume.sync().await.unwrap();
}

fn stripes(taken: &Taken) -> u64 {
    taken.census.margins.values().sum()
}

#[tokio::test(start_paused = true)]
async fn many_stripes_are_counted_in_the_background_and_not_too_often() {
    let volume = volume().await;
    let ask = || volume.census_of(&volume.meta.view().unwrap(), 0).unwrap();
    let pause = || tokio::time::sleep(PAUSE_MIN + Duration::from_millis(1));
    assert!(ask().is_none(), "the first is only begun");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let first = ask().unwrap();
    assert_eq!(*first.census, volume.count_stripes(&volume.meta.view().unwrap()).unwrap());
    let bytes = first.census.bytes.clone();
    assert_eq!(bytes.keys().copied().collect::<Vec<_>>(), [1, 2, 3].map(DiskId));
    let all = Census {
        margins: BTreeMap::from([(1, 1)]),
        shards: 3,
        missing: 0,
        lost: 0,
        widest: first.census.widest,
        bytes,
    };
    assert_eq!(all.widest.map(|class| class.scheme.n()), Some(3));
    assert_eq!(*first.census, all);

    write(&volume, b"b").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stripes(&ask().unwrap()), 1, "it is too early for another");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stripes(&ask().unwrap()), 1, "none was begun");
    pause().await;
    assert_eq!(stripes(&ask().unwrap()), 1, "now one is begun");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stripes(&ask().unwrap()), 2);

    volume.disks.fail(DiskId(1), &Error::unavailable("the test says so"));
    pause().await;
    ask();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(ask().unwrap().census.missing, 2);
    volume.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn few_stripes_are_counted_at_once_and_what_has_not_changed_is_not_counted_again() {
    let volume = volume().await;
    // Background work has come to rest.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let ask = || volume.census(&volume.meta.view().unwrap()).unwrap().unwrap();
    let (first, second) = (ask(), ask());
    assert_eq!(stripes(&first), 1);
    assert!(Arc::ptr_eq(&first.census, &second.census));
    write(&volume, b"b").await;
    assert_eq!(stripes(&ask()), 2);
    volume.shutdown().await.unwrap();
}
