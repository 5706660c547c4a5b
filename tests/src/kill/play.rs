//! The course of it: everybody runs under load, some are killed, they come back, and in the end the book has to be settled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sealwire_client::MessageId;
use serde_json::{Value, json};

use super::cast::{self, CAST, Part, Role, SHOWING, Sends, Town};
use super::ledger::{Given, Ledger};
use super::process::{Heard, Process, Stream};
use super::{Broken, Outcome, Plan};
use crate::PATIENCE;

/// Messages that a sender has been given and has not reported as accepted: more than it has under way.
const OPEN: usize = 2 * cast::AT_ONCE;
/// Messages of one sender that the slowest device may lag behind: within what a mailbox takes from one user.
const LAG: u64 = 400;
/// After so many cycles nobody is killed until the book is settled.
const SETTLE_EVERY: u32 = 10;
/// The longest time until somebody is killed, and for which they stay away. The moments are the fault that is tried.
const UNTIL_KILL: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_millis(40);
const AWAY: Duration = Duration::from_millis(250);
/// With a canary: the cycles in which the relay is copied, and put back to the copy.
const KEEP: u32 = 2;
const PUT_BACK: u32 = 6;
/// What a device waits at most before it tries again, with some time for the connection itself.
const LONGEST_RETURN: Duration = Duration::from_secs(30 + 5);
/// Lines on standard error that are remembered of each.
const TAIL: usize = 12;
/// Events on standard error that nothing here may cause.
const ALARMS: [&str; 7] = [
    "undecryptable",
    "gap",
    "mailbox_gap",
    "store_restored",
    "not_sent",
    "not_delivered",
    "session_repaired",
];

/// Everybody, as they are now.
pub(super) struct Play {
    town: Town,
    actors: Vec<Actor>,
    ledger: Ledger,
    kills: StdRng,
    canary: bool,
    drain: bool,
    heard: (Sender<Heard>, Receiver<Heard>),
    /// Whether senders are given more.
    feeding: bool,
    drains: Vec<Duration>,
    returns: Vec<Duration>,
    recoveries: Vec<Duration>,
    recovered: u64,
    alarms: BTreeMap<String, u64>,
}

struct Actor {
    part: Part,
    process: Option<Process>,
    run: u64,
    killed: u64,
    /// Streams of the running process that have not ended.
    streams: u8,
    tail: VecDeque<String>,
    /// When it connected, while messages waited and none has been shown since.
    connected: Option<Instant>,
    /// Since when there is a relay for it again, until it is there.
    misses: Option<Instant>,
}

impl Play {
    pub(super) fn set_up(plan: &Plan) -> Result<Self, Broken> {
        let actors = CAST.into_iter().map(Actor::new).collect();
        let mut play = Self {
            town: Town::new(&plan.sealwire),
            actors,
            ledger: Ledger::new(plan.seed, SHOWING, cast::flows()),
            kills: StdRng::seed_from_u64(plan.seed),
            canary: plan.canary,
            drain: plan.drain,
            heard: channel(),
            feeding: false,
            drains: Vec::new(),
            returns: Vec::new(),
            recoveries: Vec::new(),
            recovered: 0,
            alarms: BTreeMap::new(),
        };
        play.start(0);
        play.until("the relay listens", |play| {
            play.actor(0).connected.is_some()
        })?;
        for part in CAST.iter().filter(|part| part.role != Role::Relay) {
            play.town.join(part.name);
        }
        for number in 1..CAST.len() {
            play.start(number);
        }
        Ok(play)
    }

    /// One cycle: somebody is killed at some moment, stays away for a while, and comes back.
    pub(super) fn cycle(&mut self, number: u32) -> Result<(), Broken> {
        self.feeding = true;
        let soon = self.kills.random_bool(0.2);
        let moment = self.moment(if soon { SOON } else { UNTIL_KILL });
        self.hear_for(moment)?;
        let mut victims = self.victims();
        let canary = self.canary && [KEEP, PUT_BACK].contains(&number);
        if canary && !victims.contains(&0) {
            victims.push(0);
        }
        for victim in &victims {
            if self.drain {
                self.drain(*victim)?;
            } else {
                self.kill(*victim)?;
            }
        }
        match number {
            KEEP if canary => self.town.keep_relay(),
            PUT_BACK if canary => self.town.put_relay_back(),
            _ => {}
        }
        let away = self.moment(AWAY);
        self.hear_for(away)?;
        for victim in victims {
            self.start(victim);
        }
        if self.drain {
            self.await_all()?;
        }
        if number.is_multiple_of(SETTLE_EVERY) {
            self.settle()?;
        }
        Ok(())
    }

    /// Everything is delivered; everybody ends in order and comes back once more, and nothing is shown again.
    pub(super) fn end(mut self, began: Instant, cycles: u32) -> Result<Outcome, Broken> {
        self.settle()?;
        self.stop()?;
        let again = self.ledger.tally().marked_again;
        for actor in 0..CAST.len() {
            self.start(actor);
        }
        for flow in 0..cast::flows().len() {
            self.give_one(flow);
        }
        self.settle()?;
        self.stop()?;
        let tally = self.ledger.tally();
        if tally.marked_again != again {
            return Err(Broken(format!(
                "{} messages came again after an orderly end",
                tally.marked_again - again
            )));
        }
        Ok(Outcome {
            cycles,
            took: began.elapsed(),
            killed: self
                .actors
                .iter()
                .map(|actor| (actor.part.name, actor.killed))
                .collect(),
            tally,
            drains: self.drains,
            returns: self.returns,
            recoveries: self.recoveries,
            recovered: self.recovered,
            alarms: self.alarms,
        })
    }

    /// Mostly one, sometimes several, now and then all.
    fn victims(&mut self) -> Vec<usize> {
        if self.drain {
            return vec![0];
        }
        let kind = self.kills.random_range(0..20);
        let all = 0..CAST.len();
        match kind {
            0 => all.collect(),
            1..=3 => all.filter(|_| self.kills.random_bool(0.3)).collect(),
            // The relay is one of eight, and half of what there is to go wrong.
            4..=8 => vec![0],
            _ => vec![self.kills.random_range(all)],
        }
    }

    fn moment(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.kills.random_range(0.0..=1.0))
    }

    fn start(&mut self, number: usize) {
        let part = self.actor(number).part;
        let command = self.town.command(part);
        let heard = self.heard.0.clone();
        let actor = self.actor(number);
        actor.run += 1;
        actor.streams = 2;
        actor.connected = None;
        actor.process = Some(Process::start(command, number, actor.run, &heard));
        let Role::Device { sends, shows } = part.role else {
            return;
        };
        if let Some(device) = shows {
            self.ledger.restarted(device);
        }
        if let Some(Sends { flow, .. }) = sends {
            for given in self.ledger.open(flow) {
                self.give(number, &given);
            }
        }
    }

    /// Kills, and hears all that was said before.
    fn kill(&mut self, number: usize) -> Result<(), Broken> {
        let actor = self.actor(number);
        let Some(process) = actor.process.take() else {
            return Ok(());
        };
        actor.killed += 1;
        process.kill();
        self.until("the last words of the killed", |play| {
            play.actor(number).streams == 0
        })
    }

    /// Asks it to end in order, while everybody goes on.
    fn drain(&mut self, number: usize) -> Result<(), Broken> {
        // One that does not listen yet is ended by the signal, as any process.
        self.until("a relay that listens", |play| {
            play.actor(number).connected.is_some()
        })?;
        let Some(process) = self.actor(number).process.take() else {
            return Ok(());
        };
        let asked = Instant::now();
        process.terminate();
        self.until("the end of the drained", |play| {
            play.actor(number).streams == 0
        })?;
        let status = process.wait();
        self.drains.push(asked.elapsed());
        if status.success() {
            Ok(())
        } else {
            Err(self.broken(number, &format!("it did not end in order: {status}")))
        }
    }

    /// Every device is back within its back-off, counted from when there is a relay again.
    fn await_all(&mut self) -> Result<(), Broken> {
        let again = Instant::now();
        for actor in &mut self.actors {
            actor.misses = matches!(actor.part.role, Role::Device { .. }).then_some(again);
        }
        self.until("every device to be back", |play| {
            play.actors.iter().all(|actor| actor.misses.is_none())
        })?;
        match self.returns.iter().max() {
            Some(longest) if *longest > LONGEST_RETURN => {
                Err(Broken(format!("a device was back after {longest:?} only")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Asks everybody to end in order, the relay last.
    fn stop(&mut self) -> Result<(), Broken> {
        self.feeding = false;
        for number in (0..CAST.len()).rev() {
            let actor = self.actor(number);
            let Some(mut process) = actor.process.take() else {
                continue;
            };
            match actor.part.role {
                Role::Device { sends: Some(_), .. } => process.end_input(),
                Role::Relay | Role::Device { sends: None, .. } => process.terminate(),
            }
            self.until("an orderly end", |play| play.actor(number).streams == 0)?;
            let status = process.wait();
            if !status.success() {
                return Err(self.broken(number, &format!("it did not end in order: {status}")));
            }
        }
        Ok(())
    }

    /// Gives nobody anything new until everything is where it belongs.
    fn settle(&mut self) -> Result<(), Broken> {
        self.feeding = false;
        self.until("everything to be delivered", |play| {
            play.ledger.is_settled()
        })
    }

    fn feed(&mut self) {
        for flow in 0..cast::flows().len() {
            while self.feeding && self.ledger.open_count(flow) < OPEN && self.ledger.lag(flow) < LAG
            {
                self.give_one(flow);
            }
        }
    }

    fn give_one(&mut self, flow: usize) {
        let given = self.ledger.give(flow);
        let of = |actor: &Actor| matches!(actor.part.role, Role::Device { sends: Some(sends), .. } if sends.flow == flow);
        let number = self.actors.iter().position(of).expect("a sender");
        self.give(number, &given);
    }

    /// To a sender that is away it is given when it comes back.
    fn give(&mut self, number: usize, given: &Given) {
        let line = json!({"id": given.id.to_string(), "text": given.text});
        if let Some(process) = &self.actor(number).process {
            process.give(format!("{line}\n"));
        }
    }

    fn hear_for(&mut self, time: Duration) -> Result<(), Broken> {
        let end = Instant::now() + time;
        loop {
            self.feed();
            match self
                .heard
                .1
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(heard) => self.hear(heard)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => unreachable!("one sender is ours"),
            }
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) -> Result<(), Broken> {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            match self.heard.1.recv_timeout(left) {
                Ok(heard) => self.hear(heard)?,
                Err(_) => return Err(self.in_vain(what)),
            }
        }
        Ok(())
    }

    fn hear(&mut self, heard: Heard) -> Result<(), Broken> {
        let number = heard.who;
        let actor = self.actor(number);
        debug_assert_eq!(actor.run, heard.run, "it was heard to its end");
        let Some(line) = heard.line else {
            actor.streams -= 1;
            let alone = actor.streams == 0 && actor.process.is_some();
            return match alone {
                true => Err(self.broken(number, "it ended by itself")),
                false => Ok(()),
            };
        };
        let Ok(object) = serde_json::from_str::<Value>(&line) else {
            return Err(self.broken(number, &format!("it said {line:?}")));
        };
        match heard.stream {
            Stream::Out => self.result(number, &object, &line, heard.at),
            Stream::Err => self.notice(number, &object, line, heard.at),
        }
        Ok(())
    }

    fn result(&mut self, number: usize, object: &Value, line: &str, at: Instant) {
        let id = || object["id"].as_str()?.parse::<MessageId>().ok();
        let (sends, shows) = match self.actor(number).part.role {
            Role::Relay => {
                self.town.listens(line);
                self.actor(number).connected = Some(at);
                return;
            }
            Role::Device { sends, shows } => (sends, shows),
        };
        let Some(id) = id() else { return };
        if let (Some(Sends { flow, .. }), Some("accepted")) = (sends, object["state"].as_str()) {
            self.ledger.accepted(flow, id);
        }
        if let (Some(device), Some(text)) = (shows, object["text"].as_str()) {
            let redelivered = object["redelivered"] == true;
            self.ledger.shown(device, id, text, redelivered);
            if !redelivered && let Some(connected) = self.actor(number).connected.take() {
                let took = at.saturating_duration_since(connected);
                self.recoveries.push(took);
            }
        }
    }

    fn notice(&mut self, number: usize, object: &Value, line: String, at: Instant) {
        let event = object["event"].as_str().unwrap_or_default();
        if ALARMS.contains(&event) {
            *self.alarms.entry(event.to_owned()).or_default() += 1;
        }
        if event == "recovered" {
            self.recovered += object["messages"].as_u64().unwrap_or(0);
        }
        if let Role::Device {
            shows: Some(device),
            ..
        } = self.actor(number).part.role
            && object["state"] == "connected"
            && self.ledger.waiting(device) > 0
        {
            self.actor(number).connected = Some(at);
        }
        if object["state"] == "connected"
            && let Some(since) = self.actor(number).misses.take()
        {
            self.returns.push(at.saturating_duration_since(since));
        }
        let tail = &mut self.actor(number).tail;
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }

    fn in_vain(&self, what: &str) -> Broken {
        let mut text = format!("waited in vain for {what}: {:?}", self.ledger.tally());
        for (number, _) in self.actors.iter().enumerate() {
            text.push_str(&self.broken(number, "").0);
        }
        Broken(text)
    }

    fn broken(&self, number: usize, what: &str) -> Broken {
        let Some(actor) = self.actors.get(number) else {
            return Broken(what.to_owned());
        };
        let tail: Vec<String> = actor
            .tail
            .iter()
            .map(|line| format!("\n  {line}"))
            .collect();
        Broken(format!("\n{}: {what}{}", actor.part.name, tail.concat()))
    }

    fn actor(&mut self, number: usize) -> &mut Actor {
        self.actors.get_mut(number).expect("one of the cast")
    }
}

impl Actor {
    fn new(part: Part) -> Self {
        Self {
            part,
            process: None,
            run: 0,
            killed: 0,
            streams: 0,
            tail: VecDeque::new(),
            connected: None,
            misses: None,
        }
    }
}
