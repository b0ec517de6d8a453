//! Which executions a filter selects, newest first, without reading the whole table.
//!
//! Most filters match a part of the newest rows, and reading a few of these fills the page. For the rest, the exact counts say which
//! pairs of activity and tenant have matching rows at all. Each pair is a lane: an index that gives its ids in order. The lanes are merged.
//! A lane reads rows that do not match only where those are few, or where no index tells the states apart; see [`Planner::sources`].

mod statements;

use std::collections::{BinaryHeap, HashMap};

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use statements::{CLOSED, COUNT_RUNNING, DELAYED_OR_DEAD, EVERY, NEWEST, OWNED, OWNED_STATES, READY, READY_KIND, RUNNING};

use super::StoreError;
use super::rows::{Text, parsed};
use crate::client::{ListFilter, RetryFilter};
use crate::job::JobState;

/// What a page may read beside its own rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Newest rows that are read whatever the filter.
    window: usize,
    /// Rows of other states that a lane may step over, each a read of its row.
    few: i64,
    /// Ids that are sorted in memory, where an index has them in another order.
    sorted: i64,
    /// Rows of a lane that are read before a leap is tried.
    stride: usize,
}

/// Each of these takes some milliseconds at most, with a cold cache, too.
pub(super) const BOUNDS: Bounds = Bounds { window: 1_024, few: 5_000, sorted: 50_000, stride: 64 };
/// Lanes that one step of a retry by filter reads.
const DEAD_LANES: usize = 256;
/// Ids that a lane reads ahead, at most.
const AHEAD: usize = 256;

/// The newest executions before `before` that the filter selects, `limit` at most. The connection is in a transaction: the counts and
/// the rows must be of one moment.
pub(super) fn newest(
    conn: &Connection,
    filter: &ListFilter,
    before: i64,
    limit: usize,
    bounds: &Bounds,
) -> Result<Vec<i64>, StoreError> {
    if *filter == ListFilter::default() {
        let mut statement = conn.prepare_cached(EVERY)?;
        return Ok(statement.query_map(params![before, rows(limit)], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?);
    }
    let (mut ids, end) = among_newest(conn, filter, before, limit, bounds.window)?;
    if let Some(end) = end.filter(|_| ids.len() < limit) {
        let mut merge = Merge::new(conn, streams(conn, filter, bounds)?, end)?;
        while ids.len() < limit {
            let Some(id) = merge.next()? else { break };
            ids.push(id);
        }
    }
    Ok(ids)
}

/// What the filter selects of the newest rows, and the last of these rows if there may be more.
fn among_newest(
    conn: &Connection,
    filter: &ListFilter,
    before: i64,
    limit: usize,
    window: usize,
) -> Result<(Vec<i64>, Option<i64>), StoreError> {
    let (mut ids, mut read, mut end) = (Vec::new(), 0, before);
    let mut statement = conn.prepare_cached(NEWEST)?;
    let mut rows = statement.query(params![before, rows(window)])?;
    while let Some(row) = rows.next()? {
        (read, end) = (read + 1, row.get(0)?);
        let (activity, tenant) = (text(row, 1)?, text(row, 2)?);
        let is = |wanted: &Option<String>, value: &[u8]| wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == value);
        if has(&filter.states, state(row, 3)?) && is(&filter.activity, activity) && is(&filter.tenant, tenant) {
            ids.push(end);
            if ids.len() == limit {
                return Ok((ids, None));
            }
        }
    }
    Ok((ids, Some(end).filter(|_| read == window)))
}

fn text<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> rusqlite::Result<&'r [u8]> {
    Ok(row.get_ref(column)?.as_bytes()?)
}

/// A state that does not read is damage, which no filter selects.
fn state(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<JobState>> {
    Ok(std::str::from_utf8(text(row, column)?).ok().and_then(|state| state.parse().ok()))
}

fn has(states: &[JobState], state: Option<JobState>) -> bool {
    states.is_empty() || state.is_some_and(|state| states.contains(&state))
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The executions of an activity and a tenant, counted.
#[derive(Debug, Clone, PartialEq)]
struct Lane {
    activity: String,
    tenant: String,
    /// Those that the filter selects, by state.
    wanted: Vec<(JobState, i64)>,
    /// The rest.
    others: i64,
}

/// The lanes that have rows which the filter selects.
fn lanes(conn: &Connection, filter: &ListFilter) -> Result<Vec<Lane>, StoreError> {
    let mut conditions = vec!["count > 0"];
    let mut values = Vec::new();
    for (condition, value) in [("activity = ?", &filter.activity), ("tenant = ?", &filter.tenant)] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value);
        }
    }
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT activity, tenant, state, count FROM job_counts WHERE {conditions} ORDER BY activity, tenant");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut lanes: Vec<Lane> = Vec::new();
    while let Some(row) = rows.next()? {
        // A count that cannot be read says nothing about which rows there are.
        let (Ok(activity), Ok(tenant)) = (row.get::<_, String>(0), row.get::<_, String>(1)) else { continue };
        let (Ok(state), count): (_, i64) = (parsed::<JobState>(row, 2), row.get(3)?) else { continue };
        if lanes.last().is_none_or(|last| last.activity != activity || last.tenant != tenant) {
            lanes.push(Lane { activity, tenant, wanted: Vec::new(), others: 0 });
        }
        let Some(lane) = lanes.last_mut() else { continue };
        if has(&filter.states, Some(state)) {
            lane.wanted.push((state, count));
        } else {
            lane.others = lane.others.saturating_add(count);
        }
    }
    lanes.retain(|lane| !lane.wanted.is_empty());
    Ok(lanes)
}

/// The dead executions of an activity and a tenant.
#[derive(Debug)]
pub(super) struct DeadLane {
    pub(super) activity: String,
    pub(super) tenant: String,
    pub(super) state: JobState,
}

/// The lanes that a retry by filter walks. `None`: all, or so many that a walk over all dead executions is as good.
pub(super) fn dead_lanes(conn: &Connection, filter: &RetryFilter) -> Result<Option<Vec<DeadLane>>, StoreError> {
    let states = if filter.states.is_empty() { vec![JobState::Discarded, JobState::Cancelled] } else { filter.states.clone() };
    let filter = ListFilter { states, activity: filter.activity.clone(), tenant: filter.tenant.clone() };
    let mut dead = Vec::new();
    for Lane { activity, tenant, wanted, .. } in lanes(conn, &filter)? {
        let of = |(state, _)| DeadLane { activity: activity.clone(), tenant: tenant.clone(), state };
        dead.extend(wanted.into_iter().map(of));
    }
    Ok((dead.len() <= DEAD_LANES).then_some(dead))
}

/// Where a stream takes its ids from.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// All of the lane.
    Owned,
    /// The lane's rows, those of other states stepped over.
    Checked(Vec<JobState>),
    /// The index that tells the states apart.
    Exact(JobState),
    /// Ids that were sorted, the newest last.
    Sorted(Vec<i64>),
}

/// Ids in order.
#[derive(Debug)]
struct Stream {
    activity: String,
    tenant: String,
    source: Source,
    stride: usize,
}

/// Ids by activity and tenant, the newest last.
type ByOwner = HashMap<(String, String), Vec<i64>>;

/// Finds a way to read each lane.
struct Planner<'c> {
    conn: &'c Connection,
    bounds: &'c Bounds,
    /// What runs. `None` if it is too much to sort, as sequences may be.
    running: Option<ByOwner>,
    /// How many due jobs may still be sorted.
    left: i64,
}

impl<'c> Planner<'c> {
    fn new(conn: &'c Connection, bounds: &'c Bounds, lanes: &[Lane]) -> Result<Self, StoreError> {
        let needs_running =
            |lane: &Lane| lane.others > bounds.few && lane.wanted.iter().any(|(state, _)| *state == JobState::Running);
        let running = if lanes.iter().any(needs_running) { running(conn, bounds.sorted)? } else { None };
        Ok(Self { conn, bounds, running, left: bounds.sorted })
    }

    /// How to read what is wanted of a lane.
    fn sources(&mut self, lane: &Lane) -> Result<Vec<Source>, StoreError> {
        if lane.others == 0 {
            return Ok(vec![Source::Owned]);
        }
        if lane.others <= self.bounds.few {
            return Ok(vec![Source::Checked(lane.wanted.iter().map(|(state, _)| *state).collect())]);
        }
        lane.wanted.iter().map(|(state, count)| self.source(lane, *state, *count)).collect()
    }

    /// The same for one state. Each on its own: to closed executions one can leap.
    fn source(&mut self, lane: &Lane, state: JobState, count: i64) -> Result<Source, StoreError> {
        match (state, &mut self.running) {
            (JobState::Scheduled | JobState::Retryable | JobState::Discarded | JobState::Cancelled, _) => Ok(Source::Exact(state)),
            (JobState::Running, Some(running)) => {
                Ok(Source::Sorted(running.remove(&(lane.activity.clone(), lane.tenant.clone())).unwrap_or_default()))
            }
            (JobState::Available, _) if count <= self.left => {
                self.left -= count;
                Ok(Source::Sorted(ready(self.conn, lane)?))
            }
            _ => Ok(Source::Checked(vec![state])),
        }
    }
}

fn ready(conn: &Connection, lane: &Lane) -> Result<Vec<i64>, StoreError> {
    let (mut kinds, mut ready) = (conn.prepare_cached(READY_KIND)?, conn.prepare_cached(READY)?);
    let (mut ids, mut kind) = (Vec::new(), (i64::MIN, Text::default()));
    loop {
        let next = kinds.query_row(params![lane.activity, kind.0, kind.1], |row| Ok((row.get(0)?, Text::read(row, 1)?)));
        let Some(next) = next.optional()? else { break };
        kind = next;
        let of_kind = ready.query_map(params![lane.activity, kind.0, kind.1, lane.tenant], |row| row.get(0))?;
        ids.extend(of_kind.collect::<rusqlite::Result<Vec<i64>>>()?);
    }
    ids.sort_unstable();
    Ok(ids)
}

fn running(conn: &Connection, most: i64) -> Result<Option<ByOwner>, StoreError> {
    if conn.prepare_cached(COUNT_RUNNING)?.query_row([], |row| row.get::<_, i64>(0))? > most {
        return Ok(None);
    }
    let mut running = ByOwner::new();
    let mut statement = conn.prepare_cached(RUNNING)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // No filter selects what cannot be read.
        let (Ok(activity), Ok(tenant)) = (row.get(1), row.get(2)) else { continue };
        running.entry((activity, tenant)).or_default().push(row.get(0)?);
    }
    for ids in running.values_mut() {
        ids.sort_unstable();
    }
    Ok(Some(running))
}

fn streams(conn: &Connection, filter: &ListFilter, bounds: &Bounds) -> Result<Vec<Stream>, StoreError> {
    let lanes = lanes(conn, filter)?;
    let mut planner = Planner::new(conn, bounds, &lanes)?;
    let mut streams = Vec::new();
    for lane in lanes {
        for source in planner.sources(&lane)? {
            let (activity, tenant) = (lane.activity.clone(), lane.tenant.clone());
            streams.push(Stream { activity, tenant, source, stride: bounds.stride });
        }
    }
    Ok(streams)
}

impl Stream {
    /// The next ids before `before`, `limit` at most and the newest last. None: there are no more.
    fn read(&mut self, conn: &Connection, before: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        let (activity, tenant) = (&self.activity, &self.tenant);
        let mut ids = match &mut self.source {
            Source::Owned => ids(conn, OWNED, params![activity, tenant, before, rows(limit)])?,
            Source::Exact(state) => ids(conn, DELAYED_OR_DEAD, params![activity, tenant, state.as_str(), before, rows(limit)])?,
            Source::Checked(states) => {
                let states = std::mem::take(states);
                let found = self.checked(conn, &states, before, limit);
                self.source = Source::Checked(states);
                found?
            }
            Source::Sorted(sorted) => {
                sorted.truncate(sorted.partition_point(|id| *id < before));
                return Ok(sorted.split_off(sorted.len().saturating_sub(limit)));
            }
        };
        ids.reverse();
        Ok(ids)
    }

    /// Steps over the rows of the lane that have another state. Where only closed ones are wanted, and a stride met none, it leaps to the
    /// next closed execution of any lane.
    fn checked(&self, conn: &Connection, states: &[JobState], mut before: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        let only_closed = states.iter().all(|state| !state.is_open());
        let (mut lane, mut closed) = (conn.prepare_cached(OWNED_STATES)?, conn.prepare_cached(CLOSED)?);
        let mut found = Vec::new();
        loop {
            let (mut read, mut met) = (0, false);
            let mut stride = lane.query(params![self.activity, self.tenant, before, rows(self.stride)])?;
            while let Some(row) = stride.next()? {
                (read, before) = (read + 1, row.get(0)?);
                if has(states, state(row, 1)?) {
                    met = true;
                    found.push(before);
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
            }
            if read < self.stride {
                return Ok(found);
            }
            if only_closed && !met {
                let next = closed.query_row([before], |row| row.get::<_, i64>(0)).optional()?;
                let Some(next) = next else { return Ok(found) };
                before = next.saturating_add(1);
            }
        }
    }
}

fn ids(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<i64>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Streams merged, the newest id first. Each reads one id to begin with, and more the more of its ids were wanted.
struct Merge<'c> {
    conn: &'c Connection,
    streams: Vec<(Stream, Ahead)>,
    /// The next id of each stream that has one.
    heads: BinaryHeap<(i64, usize)>,
}

/// Ids that were read of a stream, the newest last.
#[derive(Debug, Default)]
struct Ahead {
    ids: Vec<i64>,
    /// How many were read last.
    size: usize,
}

impl<'c> Merge<'c> {
    fn new(conn: &'c Connection, streams: Vec<Stream>, before: i64) -> Result<Self, StoreError> {
        let streams = streams.into_iter().map(|stream| (stream, Ahead::default())).collect();
        let mut merge = Self { conn, heads: BinaryHeap::new(), streams };
        for stream in 0..merge.streams.len() {
            merge.advance(stream, before)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<i64>, StoreError> {
        let Some((id, stream)) = self.heads.pop() else { return Ok(None) };
        self.advance(stream, id)?;
        Ok(Some(id))
    }

    /// Finds the next id of a stream before this one.
    fn advance(&mut self, stream: usize, before: i64) -> Result<(), StoreError> {
        let (from, ahead) = &mut self.streams[stream];
        if ahead.ids.is_empty() {
            ahead.size = (ahead.size * 4).clamp(1, AHEAD);
            ahead.ids = from.read(self.conn, before, ahead.size)?;
        }
        self.heads.extend(ahead.ids.pop().map(|id| (id, stream)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
