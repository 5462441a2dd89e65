#[expect(clippy::cast_possible_truncation, reason = "numbers below a few segments")]
mod random;

use super::*;
use crate::error::Error;
use crate::sync::Mutex;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Answers what it was given, then is idle; notes when each step began.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Result<Step>>>,
    steps: Mutex<Vec<Instant>>,
}

impl Worker for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        self.steps.lock().unwrap().push(Instant::now());
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(Step::Idle));
        Box::pin(std::future::ready(answer))
    }
}

/// Seconds between the steps of a worker that answers so.
async fn pauses(answers: Vec<Result<Step>>) -> Vec<u64> {
    let count = answers.len();
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), ..Script::default() });
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let worker: Arc<dyn Worker> = script.clone();
    Runner::new(tasks.clone(), stop.clone()).start(worker);
    while script.steps.lock().unwrap().len() <= count {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let steps = script.steps.lock().unwrap();
    steps.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn pauses_follow_the_answers() {
    let steps = vec![
        Ok(Step::Busy),
        Ok(Step::Busy),
        Ok(Step::Idle),
        Ok(Step::Throttled(Duration::from_secs(7))),
        Ok(Step::Busy),
    ];
    assert_eq!(pauses(steps).await, [0, 0, 1, 7, 0]);
}

#[tokio::test(start_paused = true)]
async fn errors_back_off_and_recover() {
    let error = || Err(Error::unavailable("no disk"));
    let mut steps: Vec<_> = (0..8).map(|_| error()).collect();
    steps.extend([Ok(Step::Idle), error()]);
    assert_eq!(pauses(steps).await, [1, 2, 4, 8, 16, 32, 60, 60, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_kick_wakes_an_idle_worker_only() {
    let answers = VecDeque::from([
        Ok(Step::Throttled(Duration::from_secs(50))),
        Err(Error::unavailable("no disk")),
    ]);
    let script = Arc::new(Script { answers: Mutex::new(answers), ..Script::default() });
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let worker: Arc<dyn Worker> = script.clone();
    let kick = Runner::new(tasks.clone(), stop.clone()).start(worker);
    tokio::time::sleep(Duration::from_millis(10)).await;
    kick.kick();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(script.steps.lock().unwrap().len(), 2);
    kick.kick();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(script.steps.lock().unwrap().len(), 2, "an error's pause goes on");
    stop.cancel();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(1), tasks.wait()).await.unwrap();
}
