use super::*;
use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::mpsc::channel;
use tokio::sync::oneshot;

#[tokio::test]
async fn jobs_answer_and_panics_are_errors() {
    for queue in [DiskQueue::inline(), DiskQueue::threads("t", 2, 4).unwrap()] {
        assert_eq!(queue.run(|| Ok(5)).await.unwrap(), 5);
        assert_eq!(queue.run_background(|| Ok("x")).await.unwrap(), "x");
        let error = queue.run(|| Err::<(), _>(Error::corrupt("bad"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(queue.times().all().count(), 3, "each was timed");
    }
    let queue = DiskQueue::threads("t", 1, 1).unwrap();
    for _round in 0..3 {
        let error = queue.run(|| -> Result<()> { panic!("planned") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    assert_eq!(queue.run(|| Ok(6)).await.unwrap(), 6);
}

#[tokio::test]
async fn a_full_queue_makes_the_caller_wait_but_not_the_other_lane() {
    let queue = DiskQueue::threads("t", 1, 1).unwrap();
    let (release, gate) = channel::<()>();
    let (started, running) = oneshot::channel();
    let hold = queue.run(move || {
        started.send(()).unwrap();
        gate.recv().unwrap();
        Ok(())
    });
    let mut hold = Box::pin(hold);
    let mut second = Box::pin(queue.run(|| Ok(2)));
    let mut third = Box::pin(queue.run(|| Ok(3)));
    assert!(futures_util::poll!(&mut hold).is_pending());
    running.await.unwrap();
    assert!(futures_util::poll!(&mut second).is_pending());
    assert!(futures_util::poll!(&mut third).is_pending());
    let lanes = queue.lanes.as_ref().unwrap();
    assert_eq!(lanes.foreground.free_places(), 0);
    assert_eq!(queue.run_background(|| Ok(4)).await.unwrap(), 4);
    release.send(()).unwrap();
    hold.await.unwrap();
    assert_eq!((second.await.unwrap(), third.await.unwrap()), (2, 3));
}

#[tokio::test]
async fn a_cancelled_job_still_runs_and_dropping_joins() {
    let count = Arc::new(AtomicUsize::new(0));
    let queue = DiskQueue::threads("t", 3, 64).unwrap();
    for _job in 0..50 {
        let count = count.clone();
        let mut job = queue.run(move || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        drop(futures_util::poll!(&mut job));
    }
    drop(queue);
    assert_eq!(count.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn the_last_owner_may_be_a_job() {
    let queue = Arc::new(DiskQueue::threads("t", 1, 1).unwrap());
    let (release, gate) = channel::<()>();
    let (done, ended) = oneshot::channel();
    let inner = queue.clone();
    let mut job = queue.run(move || {
        gate.recv().unwrap();
        drop(inner);
        done.send(()).unwrap();
        Ok(())
    });
    assert!(futures_util::poll!(&mut job).is_pending());
    drop(job);
    drop(queue);
    release.send(()).unwrap();
    ended.await.unwrap();
}

#[tokio::test]
async fn a_look_waits_for_no_job() {
    let queue = DiskQueue::threads("probe", 1, 4).unwrap();
    let (release, held) = channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let block = || {
        let held = Arc::clone(&held);
        move || {
            let _released = held.lock().unwrap().recv();
            Ok(())
        }
    };
    let jobs = futures_util::future::join(queue.run(block()), queue.run_background(block()));
    let looks = async {
        for number in 0..10 {
            assert_eq!(queue.run_probe(move || Ok(number)).await.unwrap(), number);
        }
        drop(release);
    };
    let ((first, second), ()) = futures_util::future::join(jobs, looks).await;
    first.and(second).unwrap();
}
