//! The stage that speaks with clients.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use ultramotion_igtlink::{ClientId, Content, DeviceName, Point, RecvError, Refusal, ServerEvent};

use super::{Shared, TICK};
use crate::complaints::Comings;
use crate::page::Subject;
use crate::prompts::Refused;
use crate::send::{Dialogue, Guests, Pointing, header_version};
use crate::supervise::BoxError;

impl Shared {
    /// Greets clients, and answers what they ask.
    pub(super) fn serve_clients(&self) -> Result<(), BoxError> {
        let dialogue =
            Dialogue::new(self.names.status, header_version(&self.config.output), &self.config.output);
        let mut guests = Guests::default();
        let mut pointing = Pointing::default();
        let (told, replies) = channel::<(ClientId, String, Result<(), Refused>)>();
        let mut comings = Comings::new("comings and goings of clients");
        while !self.stop.is_set() {
            let now = Instant::now();
            comings.sum_up(now);
            for (client, name, reply) in replies.try_iter() {
                self.audience.reply(&self.server, client, &dialogue.pointed(&name, &reply));
            }
            match self.server.recv_timeout(TICK) {
                Ok(ServerEvent::Connected { client, peer }) => {
                    comings.say(now, format_args!("client {client} connected from {peer}"));
                    let is_old = guests.came(client, peer.ip());
                    self.audience.note(client, is_old && self.config.output.version == 0);
                    if self.config.output.status {
                        self.audience.reply(&self.server, client, &self.status.message());
                    }
                }
                Ok(ServerEvent::Disconnected { client, reason }) => {
                    comings.say(now, format_args!("client {client} went: {reason}"));
                    self.audience.note(client, false);
                    pointing.gone(client);
                    if let Some(peer) = guests.gone(client, reason) {
                        self.note_old(peer);
                    }
                }
                Ok(ServerEvent::Refused { peer, why }) => {
                    let why = match why {
                        Refusal::NotAllowed => "not in output.allow",
                        Refusal::Full => "output.max_clients are there",
                        Refusal::AddressFull => "output.max_clients_per_address are there from this address",
                    };
                    let problem = format_args!("a client from {peer} was refused: {why}");
                    self.source.complaints.say("client_refused", problem);
                }
                Ok(ServerEvent::Rejected { client, error }) => {
                    let problem = format_args!("client {client} sent no message: {error}");
                    self.source.complaints.say("client_rejected", problem);
                }
                Ok(ServerEvent::Message { client, raw }) => match raw.decode() {
                    Ok(message) => {
                        if guests.heard(client, message.version) {
                            self.audience.note(client, false);
                        }
                        if let Content::Points(points) = &message.content {
                            self.point(client, message.device_name, points, &mut pointing, &told);
                        }
                        if let Some(answer) = dialogue.answer(&message, &self.status, &self.parameters) {
                            self.audience.reply(&self.server, client, &answer);
                        }
                    }
                    Err(error) => self.server.count_rejected(&error),
                },
                Err(RecvError::Timeout) => {}
                Err(RecvError::Closed) => break,
            }
        }
        Ok(())
    }

    /// Has what a client points at followed; it is told what becomes of each point.
    fn point(
        &self,
        client: ClientId,
        device: DeviceName,
        points: &[Point],
        pointing: &mut Pointing,
        told: &Sender<(ClientId, String, Result<(), Refused>)>,
    ) {
        let plane = *self.plane.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, wish) in pointing.take(client, device, points, plane.as_ref()) {
            let told = told.clone();
            let reply = move |result| {
                let _ = told.send((client, name, result));
            };
            match wish {
                Ok(command) => self.ask(command, Box::new(reply)),
                Err(reason) => reply(Err(Refused::Place(reason))),
            }
        }
    }

    /// Says that clients of an address seem to know header version 1 alone.
    fn note_old(&self, peer: IpAddr) {
        let advice = match self.config.output.version {
            1 => return,
            0 => "from now on they get version 1",
            _ => "if they are older than 2017, set output.version = 1",
        };
        self.source.complaints.say(
            "output_version",
            format_args!(
                "clients from {peer} leave right after our first message, which has header version 2; {advice}"
            ),
        );
    }
}
