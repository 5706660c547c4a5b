//! `sealwire demo`: the whole of it on one machine, in a few seconds, with nothing claimed that was not checked.
//!
//! ```text
//! a new directory: relay/, alice/, bob/ ── a relay with TLS and its own issuer ── two devices join by invitation
//!   they talk ── the relay is killed while they do, and comes back
//!   bob goes away ── alice writes ── everything stops ── what the relay holds is read from its disk
//!   everything starts again ── bob reads ── what must be refused is tried ── the relay's files are searched
//! ```
//! On a terminal the relay then stays, for others to be tried with. The directory is removed in the end.

mod crash;
mod impostors;
mod relay;
mod search;
mod stage;

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sealwire_client::{Client, Event, Message, MessageId, Received};
use sealwire_protocol::invite::Invitation;
use sealwire_server::data_dir::DataDir;
use sealwire_server::mail::disk::DirectoryDisk;
use sealwire_server::mail::{Delivery, MailOptions, Mailboxes};

use crate::device::Unlock;
use crate::exit::Failure;
use crate::home::{Home, Identity, Lock};
use crate::output::Output;
use crate::stop::Stop;

use self::relay::Relay;
use self::search::Files;
use self::stage::{Column, Held, Stage};

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long the invitations are good.
const INVITATION: Duration = Duration::from_secs(600);
/// What is said: by alice, by bob, and by alice while bob is away.
const QUESTION: &str = "Is the old boathouse still empty?";
const ANSWER: &str = "It is, until Thursday.";
const LATER: &str = "Then bring the lanterns on Wednesday, at nine.";

#[derive(Debug, Args)]
#[command(
    after_help = "Everything happens on this machine, in a temporary directory that is removed in the end. On a terminal the relay stays\n\
    until Ctrl-C, for you to go on; elsewhere the command ends, with 0 only if every check held."
)]
pub(crate) struct Demo {}

pub(crate) fn run(output: Output) -> Result<(), Failure> {
    let directory = tempfile::Builder::new()
        .prefix("sealwire-demo-")
        .tempdir()
        .map_err(|error| {
            Failure::failed(format_args!(
                "no temporary directory can be made: {error}; set TMPDIR to where one can"
            ))
        })?;
    let result = super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let mut stage = Stage::new(output);
        tokio::select! {
            ended = play(&mut stage, directory.path()) => {
                let relay = ended?;
                let verdict = stage.verdict();
                if verdict.is_ok() && !output.is_json() && io::stdout().is_terminal() {
                    stage.go_on(directory.path())?;
                    stop.requested().await;
                }
                within("the relay ends", relay.stop()).await?;
                verdict
            }
            () = stop.requested() => Err(Failure::failed("stopped before it was over")),
        }
    });
    let path = directory.path().to_owned();
    if let Err(error) = directory.close() {
        output.hint(format_args!(
            "{} could not be removed: {error}",
            path.display()
        ));
    }
    result
}

/// A device at home, between two connections.
struct Player {
    home: Home,
    identity: Identity,
}

/// From nothing to the last check; the relay still runs.
async fn play(stage: &mut Stage, directory: &Path) -> Result<Relay, Failure> {
    let data = directory.join("relay");
    let relay = within("the relay starts", Relay::start(&data)).await?;
    stage.relay(relay.address(), directory)?;
    let invitation = relay.invite("alice")?;
    let (alice, alice_home) = join(&directory.join("alice"), &invitation).await?;
    stage.joined(&alice_home.identity)?;
    let (bob, bob_home) = join(&directory.join("bob"), &relay.invite("bob")?).await?;
    stage.joined(&bob_home.identity)?;

    stage.columns()?;
    say(stage, &alice, &bob, "bob", QUESTION).await?;
    say(stage, &bob, &alice, "alice", ANSWER).await?;

    stage.scene("alice writes on. The relay is killed (SIGKILL) meanwhile, and started again:")?;
    let (relay, mut crash) = crash::crash(relay, &alice, &bob).await?;
    stage.crash(&crash)?;

    stage.scene("bob goes away, alice writes and goes too. The relay's disk is looked at:")?;
    bob.close().await;
    let sent = within(
        "the relay takes a message for bob",
        alice.send("bob", Message::text(LATER)),
    )
    .await?;
    alice.close().await;
    let gone = within("the relay ends", relay.stop()).await?;
    let held = held(&data, &bob_home.identity, sent.id())?;
    let at_rest = Files::read(&data)?;

    let relay = within("the relay comes back", gone.start()).await?;
    let (alice, bob) = (alice_home.connect().await?, bob_home.connect().await?);
    let mut received = next_message(&bob).await?;
    while received.id != sent.id() {
        crash.also_received(received.id);
        received = next_message(&bob).await?;
    }
    stage.message(Column::Left, LATER, Some(&held), received.message.as_text())?;

    stage.checks()?;
    stage.check(
        &format!(
            "{} accepted while the relay was killed: {} received, {} lost, {} twice",
            crash.accepted(),
            crash.received(),
            crash.lost(),
            crash.twice()
        ),
        crash.held(),
    )?;
    stage.check(
        "bob read it after he, alice and the relay had all been away",
        received.id == sent.id() && is(&received, &alice, "alice", LATER),
    )?;
    let delivered = delivered(&alice, sent.id()).await?;
    stage.check(
        "alice was told that bob's device has it",
        delivered == bob.device_thumbprint(),
    )?;
    let number = within("alice's safety number", alice.safety_number("bob")).await?;
    let same = number == within("bob's safety number", bob.safety_number("alice")).await?;
    stage.check(
        &format!(
            "both see the same safety number, {}…",
            first_groups(&number.to_string())
        ),
        same,
    )?;

    stage.check(
        "an invitation that was used lets nobody else in",
        impostors::second_guest(&invitation).await,
    )?;
    stage.check(
        "a token for alice that somebody else signed is refused",
        impostors::forger(&alice_home.identity).await,
    )?;
    stage.check(
        "another relay at this address would be recognised",
        impostors::other_relay(&invitation).await,
    )?;

    let files = at_rest.and(Files::read(&data)?);
    let words = [QUESTION, ANSWER, LATER, crash::WORDS];
    stage.check(
        &format!("the relay's {files} have none of the words, in whatever encoding"),
        !words.iter().any(|words| files.have(words.as_bytes())),
    )?;
    stage.check(
        "the same search finds what the relay does know: whose devices talk",
        files.have(alice.device_thumbprint().as_bytes())
            && files.have(bob.device_thumbprint().as_bytes()),
    )?;

    alice.close().await;
    bob.close().await;
    Ok(relay)
}

/// One says something, and the other reads it.
async fn say(
    stage: &mut Stage,
    from: &Client,
    to: &Client,
    user: &str,
    words: &str,
) -> Result<(), Failure> {
    within(
        "the relay takes a message",
        from.send(user, Message::text(words)),
    )
    .await?;
    let received = next_message(to).await?;
    let side = if user == "bob" {
        Column::Left
    } else {
        Column::Right
    };
    stage.message(side, words, None, received.message.as_text())?;
    let writer = if user == "bob" { "alice" } else { "bob" };
    stage.later(
        &format!("{user} read what {writer} wrote"),
        is(&received, from, writer, words),
    );
    Ok(())
}

fn is(received: &Received, from: &Client, user: &str, words: &str) -> bool {
    received.device == from.device_thumbprint()
        && *received.from == *user
        && received.message.as_text() == Some(words)
}

async fn join(home: &Path, invitation: &Invitation) -> Result<(Client, Player), Failure> {
    let home = Home::at(home);
    let joining = home.join(invitation, Lock::File, home.key_file());
    let (client, identity) = within("a device joins", joining).await?;
    Ok((client, Player { home, identity }))
}

impl Player {
    async fn connect(&self) -> Result<Client, Failure> {
        let unlock = Unlock {
            passphrase_file: None,
        };
        let key = unlock.key(&self.home, self.identity.lock)?;
        within(
            "a device comes back",
            self.home.client(&self.identity, key)?.connect(),
        )
        .await
    }
}

async fn next_message(client: &Client) -> Result<Received, Failure> {
    let pick = |event| {
        let Event::Message(received) = event else {
            return None;
        };
        received.ack();
        Some(received)
    };
    next(client, "a message arrives", pick).await
}

/// Waits until the recipient's device says that it has the message; gives the device.
async fn delivered(
    client: &Client,
    wanted: MessageId,
) -> Result<sealwire_client::Thumbprint, Failure> {
    let pick = |event| {
        let Event::Delivered { id, device, .. } = event else {
            return None;
        };
        (id == wanted).then_some(device)
    };
    next(client, "a receipt arrives", pick).await
}

async fn next<T>(
    client: &Client,
    what: &str,
    pick: impl Fn(Event) -> Option<T>,
) -> Result<T, Failure> {
    let hearing = async {
        while let Some(event) = client.next().await {
            if let Some(picked) = pick(event) {
                return Ok(picked);
            }
        }
        Err("the connection has ended")
    };
    within(what, hearing).await
}

/// What the relay, which does not run now, holds under this id for a device.
fn held(data: &Path, recipient: &Identity, id: MessageId) -> Result<Held, Failure> {
    let path = DataDir::open(data).map_err(Failure::failed)?.mail_path();
    let disk = DirectoryDisk::open(&path).map_err(Failure::failed)?;
    let mailboxes =
        Mailboxes::open(Arc::new(disk), &MailOptions::default()).map_err(Failure::failed)?;
    let batch = mailboxes
        .read(&recipient.device, 0, usize::MAX, usize::MAX, 0)
        .map_err(Failure::failed)?;
    let mail = batch
        .deliveries
        .into_iter()
        .find_map(|delivery| match delivery {
            Delivery::Mail(mail) if mail.id == *id.as_bytes() => Some(mail),
            Delivery::Mail(_) | Delivery::Undelivered(_) | Delivery::Damaged { .. } => None,
        });
    let mail = mail.ok_or_else(|| {
        Failure::failed("the relay does not hold the message that it has accepted")
    })?;
    Held::new(mail.message.to_vec())
}

/// Enough of a safety number to recognise it.
fn first_groups(number: &str) -> String {
    number.split(' ').take(4).collect::<Vec<_>>().join(" ")
}

/// Bounds a step. Whatever goes wrong in one, the demo has failed.
async fn within<T, E: std::fmt::Display>(
    what: &str,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(Failure::failed(format_args!(
            "failed while {what}: {error}"
        ))),
        Err(_) => Err(Failure::failed(format_args!(
            "gave up after {} s while {what}",
            PATIENCE.as_secs()
        ))),
    }
}
