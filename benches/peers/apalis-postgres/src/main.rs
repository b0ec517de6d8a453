//! apalis-postgres 1.0: the same load as `iolaus bench` puts on its own queue. Arguments: DATABASE_URL PRODUCERS JOBS. Prints one line of
//! JSON. The settings are the best that were found: woken by NOTIFY, batches of 100, 64 tasks at once, a pool of 24.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage, queries};
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Notify;

const QUEUE: &str = "noop";

struct Done {
    jobs: AtomicUsize,
    all: usize,
    told: Notify,
}

async fn noop(_: serde_json::Value, done: Data<Arc<Done>>) -> Result<(), BoxDynError> {
    if done.jobs.fetch_add(1, Ordering::SeqCst) + 1 == done.all {
        done.told.notify_one();
    }
    Ok(())
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("a database");
    let producers: usize = arguments.next().expect("producers").parse().expect("a number");
    let jobs: usize = arguments.next().expect("jobs").parse().expect("a number");
    let pool = PgPoolOptions::new().max_connections(24).connect(&url).await.expect("it connects");
    PostgresStorage::setup(&pool).await.expect("its tables");
    let done = Arc::new(Done { jobs: AtomicUsize::new(0), all: jobs, told: Notify::new() });
    let backend = PostgresStorage::new(&pool)
        .with_config(Config::default().queue(QUEUE).batch_size(100))
        .with_pubsub()
        .poll_with_interval(Duration::from_millis(50));
    let worker = WorkerBuilder::new("bench").backend(backend).data(done.clone()).concurrency(64).build(noop);
    tokio::spawn(async move { worker.run().await.expect("it works") });
    let payload = serde_json::to_vec(&serde_json::json!({ "payload": "x".repeat(136) })).expect("a payload");
    let began = Instant::now();
    let tasks: Vec<_> = (0..producers)
        .map(|n| {
            let (pool, payload) = (pool.clone(), payload.clone());
            let share = jobs / producers + usize::from(n < jobs % producers);
            tokio::spawn(async move {
                for _ in 0..share {
                    let task = TaskBuilder::new(payload.clone()).build();
                    let mut conn = pool.acquire().await.expect("a connection");
                    queries::push_tasks(&mut *conn, QUEUE, vec![task]).await.expect("it is stored");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("it ends");
    }
    let stored = began.elapsed();
    done.told.notified().await;
    let both = began.elapsed();
    let per_second = |time: Duration| jobs as f64 / time.as_secs_f64();
    println!("{}", serde_json::json!({"peer": "apalis-postgres 1.0.0", "stored": per_second(stored), "both": per_second(both)}));
}
