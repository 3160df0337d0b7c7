//! What clients say, and what they are answered.
//!
//! | a client sends | it gets |
//! |---|---|
//! | GET_STATUS, GET_CAPABILITY | STATUS, CAPABILITY |
//! | STT_TDATA | RTS_TDATA: poses are passed on anyway, or never |
//! | COMMAND `GetStatus` | RTS_COMMAND with the state |
//! | COMMAND `SetParameter` | RTS_COMMAND; the parameters hold from the next result on |
//! | any other COMMAND | RTS_COMMAND with an error |
//! | POINT | STATUS `UM_Pointed` for each point that is new, moved or gone: followed, let go, or why not |
//!
//! Commands are those of PlusRemote in 3D Slicer: XML such as
//! `<Command Name="SetParameter"><Parameter Name="score_threshold" Value="0.7"/></Command>`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ultramotion_igtlink::{
    Command, Content, DeviceName, FixedString, HeaderVersion, Message, Query, Status, StatusCode, Text,
    Timestamp, TypeName, Verb,
};

use crate::config::OutputConfig;
use crate::prompts::Refused;
use crate::send::status::StatusBoard;
use crate::xml::{elements, escaped};

/// What clients may change while results are sent.
#[derive(Debug)]
pub struct LiveParameters {
    score_threshold: AtomicU64,
    contours_per_s: AtomicU64,
}

/// Name, least and greatest value of each.
const PARAMETERS: [(&str, f64, f64); 2] = [("score_threshold", 0.0, 1.0), ("contours_per_s", 0.0, 1000.0)];

impl LiveParameters {
    /// As configured. What is found has the pipeline's own threshold behind it.
    pub fn new(config: &OutputConfig) -> Self {
        let bits = |value: f64| AtomicU64::new(value.to_bits());
        LiveParameters { score_threshold: bits(0.0), contours_per_s: bits(config.contours_per_s) }
    }

    /// Objects with a lower score are not sent.
    pub fn score_threshold(&self) -> f32 {
        f64::from_bits(self.score_threshold.load(Relaxed)) as f32
    }

    /// Most outlines a second; 0 for all.
    pub fn contours_per_s(&self) -> f64 {
        f64::from_bits(self.contours_per_s.load(Relaxed))
    }

    fn of(&self, name: &str) -> &AtomicU64 {
        if name == PARAMETERS[0].0 { &self.score_threshold } else { &self.contours_per_s }
    }

    /// Sets all parameters of a command, or none.
    fn set(&self, xml: &str) -> Result<String, String> {
        let mut requested = Vec::new();
        for element in elements(xml).filter(|element| element.name == "Parameter") {
            let (name, value) = element
                .attribute("Name")
                .zip(element.attribute("Value"))
                .ok_or("a Parameter needs a Name and a Value")?;
            let known = PARAMETERS.iter().find(|(known, ..)| name == *known);
            let &(known, least, greatest) = known.ok_or_else(|| {
                let names = PARAMETERS.map(|(name, ..)| name).join(", ");
                format!("there is no parameter '{name}'; there are {names}")
            })?;
            let number = value.trim().parse().ok().filter(|number| (least..=greatest).contains(number));
            let number: f64 = number
                .ok_or_else(|| format!("{known} is '{value}', but it must be {least} to {greatest}"))?;
            requested.push((known, number));
        }
        if requested.is_empty() {
            return Err("there is no Parameter".into());
        }
        let words: Vec<String> =
            requested.iter().map(|(name, number)| format!("{name} is {number}")).collect();
        requested.into_iter().for_each(|(name, number)| self.of(name).store(number.to_bits(), Relaxed));
        Ok(words.join(", "))
    }
}

/// Answers clients.
#[derive(Debug)]
pub struct Dialogue {
    name: DeviceName,
    pointed: DeviceName,
    version: HeaderVersion,
    passes_tdata: bool,
}

impl Dialogue {
    /// Under the name that STATUS has.
    pub fn new(name: DeviceName, version: HeaderVersion, config: &OutputConfig) -> Self {
        let pointed = DeviceName::truncated(&format!("{}Pointed", config.prefix));
        Dialogue { name, pointed, version, passes_tdata: config.transforms }
    }

    /// The answer to a client's message, if it needs one.
    pub fn answer(
        &self,
        message: &Message<'_>,
        status: &StatusBoard,
        parameters: &LiveParameters,
    ) -> Option<Message<'static>> {
        match &message.content {
            Content::Query(Query { verb: Verb::Get, target, .. }) if *target == "STATUS" => {
                Some(status.message())
            }
            Content::Query(Query { verb: Verb::Get, target, .. })
                if target.as_bytes().starts_with(b"CAPABIL") =>
            {
                let types = ["IMAGE", "POLYDATA", "STRING", "POINT", "STATUS", "TRANSFORM", "TDATA"];
                Some(self.message(Content::Capability(types.map(TypeName::truncated).to_vec())))
            }
            Content::Query(Query { verb: Verb::Start, target, .. }) if *target == "TDATA" => {
                Some(self.message(Content::Query(Query::answer(*target, self.passes_tdata))))
            }
            Content::Command(command) => Some(self.obey(command, message.device_name, status, parameters)),
            _ => None,
        }
    }

    /// Tells what became of a point.
    pub(crate) fn pointed(&self, name: &str, result: &Result<(), Refused>) -> Message<'static> {
        let (code, words) = match result {
            Ok(()) => (StatusCode::Ok, format!("{name}: heard")),
            Err(refused) => (StatusCode::IllegalInstruction, format!("{name} is not followed: {refused}")),
        };
        let status = Status {
            code,
            subcode: 0,
            name: FixedString::truncated(if result.is_ok() { "POINTED" } else { "REFUSED" }),
            message: words.into_bytes().into(),
        };
        Message { device_name: self.pointed, ..self.message(Content::Status(status)) }
    }

    fn message(&self, content: Content<'static>) -> Message<'static> {
        Message { version: self.version, ..Message::new(self.name, content).at(Timestamp::now()) }
    }

    fn obey(
        &self,
        command: &Command<'_>,
        device: DeviceName,
        status: &StatusBoard,
        parameters: &LiveParameters,
    ) -> Message<'static> {
        let xml = command.text.to_str().unwrap_or_default();
        let name = command.name.to_string_lossy();
        let result = match &*name {
            "GetStatus" => Ok(status.words()),
            "SetParameter" => parameters.set(&xml),
            other => Err(format!("there is no command '{other}'; there are GetStatus and SetParameter")),
        };
        let (word, said) = match &result {
            Ok(said) => ("SUCCESS", said),
            Err(said) => ("FAIL", said),
        };
        let error = if result.is_err() { format!(" Error=\"{}\"", escaped(said)) } else { String::new() };
        let reply = format!(
            "<CommandReply Name=\"{}\" Status=\"{word}\"{error} Message=\"{}\"></CommandReply>",
            escaped(&name),
            escaped(said)
        );
        let content =
            Content::CommandReply(Command { id: command.id, name: command.name, text: Text::new(reply) });
        let mut message = Message { device_name: device, ..self.message(content) };
        if message.version.is_extended() {
            message.metadata.push("Status", word);
            message.metadata.push("Message", said.clone());
            if result.is_err() {
                message.metadata.push("Error", said.clone());
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_all_or_none() {
        let parameters = LiveParameters::new(&OutputConfig::default());
        let set = |text: &str| parameters.set(&format!("<Command Name=\"SetParameter\">{text}</Command>"));
        for (text, sentence) in [
            ("", "there is no Parameter"),
            ("<Parameter Name='score_threshold'/>", "a Parameter needs a Name and a Value"),
            (
                "<Parameter Name='x' Value='1'/>",
                "there is no parameter 'x'; there are score_threshold, contours_per_s",
            ),
            (
                "<Parameter Name='contours_per_s' Value='5'/><Parameter Name='score_threshold' Value='2'/>",
                "score_threshold is '2', but it must be 0 to 1",
            ),
            (
                "<Parameter Name='score_threshold' Value='nan'/>",
                "score_threshold is 'nan', but it must be 0 to 1",
            ),
        ] {
            assert_eq!(set(text).unwrap_err(), sentence);
        }
        assert_eq!((parameters.score_threshold(), parameters.contours_per_s()), (0.0, 10.0));
        let both =
            "<Parameter Name='contours_per_s' Value='5'/><Parameter Name='score_threshold' Value='0.75'/>";
        assert_eq!(set(both).unwrap(), "contours_per_s is 5, score_threshold is 0.75");
        assert_eq!((parameters.score_threshold(), parameters.contours_per_s()), (0.75, 5.0));
    }
}
