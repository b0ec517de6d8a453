//! effectum 0.7: the same load as `iolaus bench` puts on its own queue. Arguments: DIRECTORY PRODUCERS JOBS. Prints one line of JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use effectum::{Job, JobRunner, Queue, RunningJob, Worker};
use tokio::sync::Notify;

#[derive(Debug)]
struct Done {
    jobs: AtomicUsize,
    all: usize,
    told: Notify,
}

async fn noop(_: RunningJob, done: Arc<Done>) -> Result<(), std::convert::Infallible> {
    if done.jobs.fetch_add(1, Ordering::SeqCst) + 1 == done.all {
        done.told.notify_one();
    }
    Ok(())
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("a directory");
    let producers: usize = arguments.next().expect("producers").parse().expect("a number");
    let jobs: usize = arguments.next().expect("jobs").parse().expect("a number");
    let file = format!("{directory}/effectum-{}.db", std::process::id());
    let queue = Arc::new(Queue::new(std::path::Path::new(&file)).await.expect("it opens"));
    let done = Arc::new(Done { jobs: AtomicUsize::new(0), all: jobs, told: Notify::new() });
    let runner = JobRunner::builder("noop", noop).build();
    let worker =
        Worker::builder(&queue, done.clone()).max_concurrency(256).jobs([runner]).build().await.expect("a worker");
    let payload = serde_json::json!({ "payload": "x".repeat(136) });
    let began = Instant::now();
    let tasks: Vec<_> = (0..producers)
        .map(|n| {
            let (queue, payload) = (queue.clone(), payload.clone());
            let share = jobs / producers + usize::from(n < jobs % producers);
            tokio::spawn(async move {
                for _ in 0..share {
                    let job = Job::builder("noop").json_payload(&payload).expect("a payload");
                    job.add_to(&queue).await.expect("it is stored");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("it ends");
    }
    let stored = began.elapsed();
    done.told.notified().await;
    // Ends when the last results are written, as ours does.
    worker.unregister(Some(Duration::from_secs(60))).await.expect("it stops");
    let both = began.elapsed();
    let per_second = |time: Duration| jobs as f64 / time.as_secs_f64();
    println!("{}", serde_json::json!({"peer": "effectum 0.7.0", "stored": per_second(stored), "both": per_second(both)}));
    for end in ["", "-wal", "-shm", "-journal"] {
        std::fs::remove_file(format!("{file}{end}")).ok();
    }
}
