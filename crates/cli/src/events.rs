//! How what happens to a device is shown: messages on standard output, everything else on standard error.

use std::cell::Cell;
use std::path::Path;

use sealwire_client::{
    ConnectionState, Event, FileOffer, MailboxGap, Message, NotDelivered, NotSent, Received,
};
use sealwire_e2e::file::FILE_MEDIA_TYPE;
use sealwire_protocol::base64url;
use sealwire_protocol::name::User;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{Block, Output, Printable, Written};
use crate::progress::Size;
use crate::when::Moment;

/// What an event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A message for this user, which is on standard output now.
    Message,
    /// Something else.
    Other,
    /// Nobody reads standard output any more: the event has not been shown.
    Unread,
}

/// Files that were shown and not saved. Their messages stay in the store for whoever saves them.
#[derive(Debug, Default)]
pub(crate) struct Unsaved(Cell<u32>);

/// How many files may wait to be saved before a command that does not save them ends. The store takes no more than 512 messages that are not
/// acknowledged: the others pass through the rest.
const MAX_UNSAVED: u32 = 448;

impl Unsaved {
    /// Counts one more.
    fn add(&self) -> Result<(), Failure> {
        if self.0.get() >= MAX_UNSAVED {
            return Err(Failure::failed(format_args!(
                "{MAX_UNSAVED} files wait to be saved, and no more are kept on this device; save them with `sealwire listen --save DIR`, which also \
                 drops those that are gone. What comes after them waits at the relay"
            )));
        }
        self.0.set(self.0.get().saturating_add(1));
        Ok(())
    }
}

/// What became of a file that a message names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum File<'a> {
    /// It was not asked for; its message stays.
    Waits,
    /// It is here.
    SavedAt(&'a Path),
    /// It cannot be had.
    Lost(&'a sealwire_client::FileError),
}

/// Shows an event of a device of `own`. A message is acknowledged once it is shown: what nobody has seen comes again. With `read`, its sender
/// is told. One that names a file stays instead, for `listen --save`; it is shown once, and after that said to wait still.
///
/// # Errors
/// Too many files wait, or standard output fails.
pub(crate) fn show(
    event: &Event,
    own: &User,
    read: bool,
    unsaved: &Unsaved,
    output: Output,
) -> Result<Shown, Failure> {
    if let Some((received, to, offer)) = file_in(event) {
        unsaved.add()?;
        if received.redelivered {
            file_waits(received, to, &offer, output);
            return Ok(Shown::Other);
        }
        return show_file(event, &offer, File::Waits, read, output);
    }
    let (received, to, shown) = if let Event::Message(received) = event {
        (received, None, Shown::Message)
    } else if let Event::Copy { to, message } = event {
        (message, Some(&**to), Shown::Other)
    } else {
        notice(event, own, output);
        return Ok(Shown::Other);
    };
    if message(received, to, None, output)? == Written::Unread {
        return Ok(Shown::Unread);
    }
    // What this user has sent is read by nobody else.
    if read && to.is_none() {
        received.read();
    } else {
        received.ack();
    }
    Ok(shown)
}

/// The message in an event, if it names a file: from whom, or by this user to whom, and which.
pub(crate) fn file_in(event: &Event) -> Option<(&Received, Option<&str>, FileOffer)> {
    let (received, to) = if let Event::Message(received) = event {
        (received, None)
    } else if let Event::Copy { to, message } = event {
        (message, Some(&**to))
    } else {
        return None;
    };
    Some((received, to, FileOffer::in_message(&received.message)?))
}

/// Shows a message that names a file; it is acknowledged as [`show`] does, unless the file still waits.
pub(crate) fn show_file(
    event: &Event,
    offer: &FileOffer,
    file: File<'_>,
    read: bool,
    output: Output,
) -> Result<Shown, Failure> {
    let Some((received, to, _)) = file_in(event) else {
        return Ok(Shown::Other);
    };
    if message(received, to, Some((offer, file)), output)? == Written::Unread {
        return Ok(Shown::Unread);
    }
    match (file, to) {
        (File::Waits, _) => {}
        (_, None) if read => received.read(),
        _ => received.ack(),
    }
    Ok(if to.is_some() {
        Shown::Other
    } else {
        Shown::Message
    })
}

/// A message; with `to`, one that another device of this user has sent.
fn message(
    received: &Received,
    to: Option<&str>,
    file: Option<(&FileOffer, File<'_>)>,
    output: Output,
) -> Result<Written, Failure> {
    let Received {
        id,
        from,
        device,
        sent_at,
        redelivered,
        forward_secrecy,
        message,
        ..
    } = received;
    let mut object = json!({
        "event": if to.is_some() { "copy" } else { "message" },
        "id": id.to_string(),
        "user": &**from,
        "device": device.to_string(),
        "sent_at": sent_at,
        "redelivered": redelivered,
        "forward_secrecy": forward_secrecy,
        "media_type": message.media_type(),
    });
    let (member, value): (&str, Value) = match (file, message.as_text()) {
        // Its key is for the store only.
        (Some((offer, file)), _) => ("file", described(offer, file)),
        (None, _) if names_a_file(message) => ("file", json!({"error": NO_OFFER})),
        (None, Some(text)) => ("text", text.into()),
        (None, None) => ("body", base64url::encode(message.body()).into()),
    };
    insert(&mut object, member, value);
    if let Some(to) = to {
        insert(&mut object, "to", to.into());
    }
    let who = writer(received, to);
    let what = match (file, message.as_text()) {
        (Some((offer, file)), _) => shown(offer, file),
        (None, _) if names_a_file(message) => format!("[file: {NO_OFFER}]"),
        (None, Some(text)) => Block(text).to_string(),
        (None, None) => format!(
            "[{}, {} bytes; --json shows them]",
            Printable(message.media_type()),
            message.body().len()
        ),
    };
    let time = Moment::from_millis(*sent_at).time_of_day();
    let again = if *redelivered { " (perhaps again)" } else { "" };
    let how = if *forward_secrecy {
        ""
    } else {
        " (without forward secrecy)"
    };
    output.line(&object, format_args!("{time} {who}{again}{how}: {what}"))
}

/// Whether a message is about a file, also where it is in no form that is known here.
fn names_a_file(message: &Message) -> bool {
    message.media_type() == FILE_MEDIA_TYPE
}

/// What is said of a message that names a file in a form that is not known here. It may hold a key all the same.
const NO_OFFER: &str = "what it says is not valid, or of a newer version";

fn writer(received: &Received, to: Option<&str>) -> String {
    match to {
        Some(to) => format!("you to {}", Printable(to)),
        None => Printable(&received.from).to_string(),
    }
}

/// A file that came before and was not saved: on standard error, as it may have been shown.
fn file_waits(received: &Received, to: Option<&str>, offer: &FileOffer, output: Output) {
    let object = json!({
        "event": "file_waits",
        "id": received.id.to_string(),
        "user": &*received.from,
        "file": described(offer, File::Waits),
    });
    let (who, what) = (writer(received, to), shown(offer, File::Waits));
    output.notice(&object, format_args!("{who}: still here: {what}"));
}

fn described(offer: &FileOffer, file: File<'_>) -> Value {
    let mut object = json!({
        "name": offer.name(),
        "size": offer.size(),
        "media_type": offer.media_type(),
    });
    match file {
        File::Waits => {}
        File::SavedAt(path) => insert(&mut object, "path", path.to_string_lossy().into()),
        File::Lost(error) => insert(&mut object, "error", error.to_string().into()),
    }
    object
}

fn shown(offer: &FileOffer, file: File<'_>) -> String {
    let (name, size) = (Printable(offer.name()), Size(offer.size()));
    match file {
        File::Waits => format!("[file {name}, {size}; `sealwire listen --save DIR` fetches it]"),
        File::SavedAt(path) => {
            let path = path.to_string_lossy();
            format!("[file {name}, {size}, saved as {}]", Printable(&path))
        }
        File::Lost(error) => format!("[file {name}, {size}, not saved: {error}]"),
    }
}

/// Everything but messages, on standard error.
pub(crate) fn notice(event: &Event, own: &User, output: Output) {
    match event {
        Event::Delivered { id, user, device } => output.notice(
            &json!({"event": "delivered", "id": id.to_string(), "user": &**user, "device": device.to_string()}),
            format_args!("{} has message {id}", Printable(user)),
        ),
        Event::Read { id, user, device } => output.notice(
            &json!({"event": "read", "id": id.to_string(), "user": &**user, "device": device.to_string()}),
            format_args!("{} has read message {id}", Printable(user)),
        ),
        Event::NotDelivered { id, user, device, reason } => {
            let theirs = format!("a device of {}", Printable(user));
            let (name, whose, why) = match reason {
                NotDelivered::Expired => ("expired", theirs, "it was not fetched in time"),
                NotDelivered::DeviceRemoved => ("device_removed", theirs, "the device was removed"),
                NotDelivered::MailboxFull => ("mailbox_full", "one of your own devices".to_owned(), "its mailbox is full"),
                _ => ("unknown", theirs, "this version does not know why"),
            };
            output.notice(
                &json!({"event": "not_delivered", "id": id.to_string(), "user": &**user, "device": device.to_string(), "reason": name}),
                format_args!("message {id} does not reach {whose}: {why}"),
            );
        }
        Event::NotSent { id, user, reason } => {
            let why = match reason {
                NotSent::Refused(refusal) => refusal.to_string(),
                NotSent::PeerChanged => "their devices have changed since they were verified".into(),
                NotSent::Card => "their device cards do not verify".into(),
                NotSent::Restored => "this device's store was put back to an earlier copy, and nobody knows whether it had gone out".into(),
                _ => "this version does not know why".into(),
            };
            output.notice(
                &json!({"event": "not_sent", "id": id.to_string(), "user": &**user, "reason": why}),
                format_args!("message {id} to {} was not sent: {why}", Printable(user)),
            );
        }
        Event::PeerChanged { user, added, removed, was_verified } => {
            let names = |devices: &[sealwire_client::Thumbprint]| devices.iter().map(ToString::to_string).collect::<Vec<_>>();
            let user_shown = Printable(user);
            let advice = if **user == *own.as_str() {
                ", your own: nothing is sent to those you had verified until you compare numbers with them again; if you did not add one, tell the relay's operator".to_owned()
            } else if *was_verified {
                format!(", who was verified and is not any more: nothing is sent until you compare numbers again with `sealwire verify {user_shown}`")
            } else {
                format!("; compare numbers with `sealwire verify {user_shown}`")
            };
            output.notice(
                &json!({"event": "peer_changed", "user": &**user, "added": names(added), "removed": names(removed), "was_verified": was_verified}),
                format_args!(
                    "other devices of {user_shown} ({} new, {} gone){advice}",
                    added.len(),
                    removed.len(),
                ),
            );
        }
        Event::Gap { user, device, missing } => output.notice(
            &json!({"event": "gap", "user": &**user, "device": device.to_string(), "missing": missing}),
            format_args!("{missing} messages from {} are missing; they may still come", Printable(user)),
        ),
        Event::MailboxGap(gap) => {
            let (name, what) = match gap {
                MailboxGap::NewHistory => ("new_history", "the relay has begun this device's mailbox anew: what waited in it is gone"),
                MailboxGap::PutBack => ("put_back", "the relay was put back to an earlier state: messages that it had for this device may be gone"),
                MailboxGap::Damaged => ("damaged", "a message for this device was damaged on the relay's disk, and is gone"),
                _ => ("unknown", "messages for this device may be gone from the relay"),
            };
            output.notice(
                &json!({"event": "mailbox_gap", "reason": name}),
                format_args!("{what}; ask those who may have written to you"),
            );
        }
        Event::Recovered { messages } => {
            let object = json!({"event": "recovered", "messages": messages});
            match messages {
                // Nothing that people would miss.
                0 if !output.is_json() => {}
                1 => output.notice(&object, "1 message or receipt had waited"),
                messages => output.notice(&object, format_args!("{messages} messages and receipts had waited")),
            }
        }
        Event::StoreRestored => output.notice(
            &json!({"event": "store_restored"}),
            "this device's store was put back to an earlier copy: its sessions are made anew, and messages that came since the copy are not here",
        ),
        Event::RelayKeyChanged { relay } => output.notice(
            &json!({"event": "relay_key_changed", "relay": relay.to_string()}),
            format_args!("the relay has a new key, which the one before has vouched for: {relay}"),
        ),
        Event::Undecryptable { id, user, device } => output.notice(
            &json!({"event": "undecryptable", "id": id.to_string(), "user": &**user, "device": device.to_string()}),
            format_args!("message {id} from {} cannot be opened, and their device could not send it again; ask them to", Printable(user)),
        ),
        Event::SessionRepaired { user, device } => output.notice(
            &json!({"event": "session_repaired", "user": &**user, "device": device.to_string()}),
            format_args!("a new session with {} was started; what was under way comes again", Printable(user)),
        ),
        Event::Connection(state) => connection(*state, output),
        // The command calls no services.
        Event::Push(_) | Event::PushesMissed { .. } => {}
        // They are shown by `show`.
        Event::Message(_) | Event::Copy { .. } => {}
        // A later version of the client may know more.
        _ => {}
    }
}

fn connection(state: ConnectionState, output: Output) {
    let (name, reason) = match state {
        ConnectionState::Connecting => ("connecting", None),
        ConnectionState::Connected => ("connected", None),
        ConnectionState::Waiting { reason, .. } => ("waiting", Some(reason.to_string())),
        ConnectionState::Closed(closed) => ("closed", Some(closed.to_string())),
        _ => return,
    };
    let mut object = json!({"event": "connection", "state": name});
    if let Some(reason) = &reason {
        insert(&mut object, "reason", reason.as_str().into());
    }
    match (output.is_json(), reason) {
        (true, _) => output.notice(&object, ""),
        // Said once more by the failure that ends the command.
        (false, Some(reason)) if name == "waiting" => {
            output.hint(format_args!("{reason}; trying again"))
        }
        (false, _) if name == "connected" => output.hint("connected"),
        (false, _) => {}
    }
}

fn insert(object: &mut Value, member: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(member.to_owned(), value);
    }
}
