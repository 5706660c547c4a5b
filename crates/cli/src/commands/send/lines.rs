//! `sealwire send USER --lines`: each line of standard input is a message, for as long as there are lines.
//!
//! ```text
//!  standard input ── lines ──▶ at most N under way, in order ──▶ relay
//!  standard output ◀── one result for each line that has got as far as was asked, in the order of the lines
//! ```
//! A line is handed to the client when there is room for it, and the client keeps it in its outbox. Whatever is killed after that, it is sent; what
//! was not reported may be given again under its id.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::str::FromStr as _;
use std::task::Poll;
use std::time::Duration;

use sealwire_client::error::Refusal;
use sealwire_client::{Client, ConnectionState, Error, Message, MessageId};
use sealwire_protocol::limits::MAX_BODY_BYTES;
use serde::Deserialize;

use super::{Accepted, Send, Until, finish};
use crate::device::Device;
use crate::events;
use crate::exit::Failure;
use crate::lines::{self, Line};
use crate::output::Output;
use crate::stop::Stop;

/// Bytes of a line that is JSON, at most: every byte of the text escaped, and the rest.
const MAX_JSON_BYTES: usize = 6 * MAX_BODY_BYTES + 256;
/// How long to wait where the relay takes no more for now.
const SLOWER: Duration = Duration::from_millis(500);

/// A line as `--json-lines` takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    text: String,
    id: Option<String>,
}

/// A line under way, and how it ends.
type UnderWay = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Sends every line. What goes wrong is said at once; the last of it is how the command ends.
pub(super) async fn send(
    send: &Send,
    device: &Device,
    stop: &mut Stop,
    output: Output,
) -> Result<(), Failure> {
    let limit = if send.json_lines {
        MAX_JSON_BYTES
    } else {
        MAX_BODY_BYTES
    };
    let mut typed = lines::from_standard_input(limit);
    let (mut number, mut more) = (0, true);
    let mut under_way: VecDeque<UnderWay> = VecDeque::new();
    let mut end = Ok(());
    while more || !under_way.is_empty() {
        let room = more && under_way.len() < send.at_once;
        let done = tokio::select! {
            line = typed.recv(), if room => match line {
                Some(line) => {
                    number += 1;
                    begin(send, &device.client, line, number, output, &mut under_way).await
                }
                None => {
                    more = false;
                    Ok(())
                }
            },
            done = first(&mut under_way) => done,
            () = other_events(device, output) => Ok(()),
            () = stop.requested() => return stopped(under_way.len()),
        };
        if let Err(failure) = done {
            if matches!(device.client.connection(), ConnectionState::Closed(_)) {
                return Err(failure);
            }
            if let Err(earlier) = std::mem::replace(&mut end, Err(failure)) {
                earlier.say(output.is_json());
            }
        }
    }
    end
}

/// Hands a line to the client: what is handed over first is sent first.
async fn begin(
    send: &Send,
    client: &Client,
    line: Line,
    number: u64,
    output: Output,
    under_way: &mut VecDeque<UnderWay>,
) -> Result<(), Failure> {
    let named = move |failure: Failure| failure.in_line(number);
    let line = line.map_err(named)?;
    if line.is_empty() {
        return Ok(());
    }
    let message = message(send, line).map_err(named)?;
    let (client, user) = (client.clone(), send.user.clone());
    let (until, timeout) = (send.wait, send.timeout.map(Duration::from_secs));
    let mut sending: UnderWay = Box::pin(async move {
        let accepted = accept(&client, user.as_str(), message).await?;
        let line = Some(number);
        finish(Accepted { receipt: accepted, user: user.as_str(), line }, until, timeout, output).await
    });
    // Polled once before the next line is: that hands it over.
    let polled = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
    match polled {
        Poll::Ready(done) => done.map_err(named),
        Poll::Pending => {
            under_way.push_back(Box::pin(async move { sending.await.map_err(named) }));
            Ok(())
        }
    }
}
