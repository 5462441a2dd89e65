use super::*;
use crate::worker::testing::{Rig, noise, settle};

#[tokio::test]
async fn deleted_files_give_back_their_stripes() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let stripe = rig.write(ino, 0, &noise(1, 100_000)).await;
    let reap = Reap::new(rig.meta.clone());
    assert_eq!(reap.step().await.unwrap(), Step::Idle);
    rig.unlink(ino).await;
    assert_eq!(settle(&reap).await, Step::Idle);
    assert!(rig.stripes().is_empty());
    assert_eq!(rig.dead(), [stripe]);
}
