//! Commands and scripts as they are sent.

use std::fmt;
use std::io::Write as _;

use redis::{Cmd, RedisWrite as _};

use crate::clock::Timestamp;
use crate::id::SessionId;
use crate::record::{Record, Version};

/// Part of a command, which is written where the command has it, without a buffer of its own.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Id(SessionId),
    Record(&'a Record),
    /// What records of a version begin with.
    Beginning(Version),
    /// A key that is about a session, after what such keys begin with.
    OfSession(&'a str, SessionId),
    /// The same for an owner, who is any text; hex keeps spaces, braces and line breaks out of keys.
    OfOwner(&'a str, &'a str),
}

impl<'a> Part<'a> {
    pub(super) const EMPTY: Self = Self::Bytes(b"");

    pub(super) const fn text(text: &'a str) -> Self {
        Self::Bytes(text.as_bytes())
    }

    pub(super) const fn time(time: Timestamp) -> Self {
        Self::Number(time.as_millis())
    }

    /// How long it gets at most.
    fn len(self) -> usize {
        const ID: usize = "018f5c1e-7a2b-7c3d-8e4f-0123456789ab".len();
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(_) => "18446744073709551615".len(),
            Self::Id(_) => ID,
            Self::Record(record) => record.encoded_len(),
            Self::Beginning(_) => 9,
            Self::OfSession(start, _) => start.len() + ID + 1,
            Self::OfOwner(start, owner) => start.len() + 2 * owner.len() + 1,
        }
    }

    fn write_to(self, command: &mut Cmd) {
        match self {
            Self::Bytes(bytes) => command.write_arg(bytes),
            Self::Number(number) => command.write_arg_fmt(number),
            Self::Id(id) => command.write_arg_fmt(id),
            Self::Record(record) => {
                let mut argument = command.writer_for_next_arg();
                record.encode_to(|bytes| {
                    // Writing to a command does not fail.
                    let _ = argument.write_all(bytes);
                });
            }
            Self::Beginning(version) => command.write_arg(&Record::beginning(version)),
            Self::OfSession(start, id) => command.write_arg_fmt(format_args!("{start}{id}}}")),
            Self::OfOwner(start, owner) => {
                command.write_arg_fmt(format_args!("{start}{}}}", Hex(owner)));
            }
        }
    }
}

pub(super) fn command(parts: &[Part<'_>]) -> Cmd {
    joined(&[parts])
}

/// A command of which the parts are in several places, with room for all from the beginning.
pub(super) fn joined(parts: &[&[Part<'_>]]) -> Cmd {
    let parts = || parts.iter().copied().flatten().copied();
    let mut command = Cmd::with_capacity(parts().count(), parts().map(Part::len).sum());
    parts().for_each(|part| part.write_to(&mut command));
    command
}

struct Hex<'a>(&'a str);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text of which this is the hex; none if it is none.
pub(super) fn unhex(hex: &str) -> Option<String> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let bytes = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?));
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

pub(super) struct Script {
    code: String,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &str) -> Self {
        Self::at_once("", code)
    }

    /// One whose usual case comes before all that the others need.
    pub(super) fn at_once(usual: &str, code: &str) -> Self {
        let common = include_str!("common.lua");
        let code = format!("{usual}{common}\nreturn run(function()\n{code}\nend)");
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    /// Runs it on a server that knows it.
    pub(super) fn by_hash(&self, keys: &[Part<'_>], arguments: &[Part<'_>]) -> Cmd {
        run("EVALSHA", &self.hash, keys, arguments)
    }

    /// Runs it on any server, which knows it from then on.
    pub(super) fn whole(&self, keys: &[Part<'_>], arguments: &[Part<'_>]) -> Cmd {
        run("EVAL", &self.code, keys, arguments)
    }
}

fn run(verb: &str, script: &str, keys: &[Part<'_>], arguments: &[Part<'_>]) -> Cmd {
    let count = Part::Number(keys.len() as u64);
    joined(&[
        &[Part::text(verb), Part::text(script), count],
        keys,
        arguments,
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis::Arg;

    use super::*;
    use crate::expiry::ExpiryPolicy;
    use crate::record::Previous;
    use crate::token::Digest;

    /// There is no other allocation for a command than for its room.
    #[test]
    fn a_part_is_no_longer_than_it_says() {
        let mut record = Record::new(Digest::from_bytes([7; 32]), Timestamp::MAX, Timestamp::MAX);
        record.previous = Some(Previous::new(record.digest, Timestamp::MAX));
        record.owner = Some("\u{1f9e5}".into());
        record.authenticated = Some(Timestamp::MAX);
        record.policy = Some(ExpiryPolicy::new(Duration::from_secs(60), Duration::MAX));
        let id = SessionId::from_bytes([0xff; 16]);
        for part in [
            Part::EMPTY,
            Part::text("text"),
            Part::Number(u64::MAX),
            Part::Id(id),
            Part::Record(&record),
            Part::Beginning(Version::new(u64::MAX)),
            Part::OfSession("session:{", id),
            Part::OfOwner("owner:{", "\u{1f9e5}"),
        ] {
            let mut command = Cmd::new();
            part.write_to(&mut command);
            let written = match command.args_iter().next() {
                Some(Arg::Simple(written)) => written.len(),
                _ => panic!("it is written"),
            };
            assert_eq!(part.len(), written);
        }
    }

    #[test]
    fn an_owner_comes_back_from_its_key() {
        for owner in ["a", "Ada Lovelace", "\u{1f9e5}{x}\n*"] {
            assert_eq!(unhex(&Hex(owner).to_string()).as_deref(), Some(owner));
        }
        for no_owner in ["6", "6x", "ff", "session:61"] {
            assert_eq!(unhex(no_owner), None);
        }
    }
}
