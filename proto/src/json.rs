//! [`Json`]: any JSON value as its source text.
//!
//! Not a protobuf `Struct`: that keeps numbers as doubles and so turns 1.10
//! into 1.1 and 2^53 + 1 into something else.

use prost::{
    DecodeError,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// A JSON value kept as text; numbers stay as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Json {
    text: String,
}

impl Json {
    /// Takes a JSON text.
    ///
    /// # Errors
    /// The text is not one JSON value.
    pub fn new(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_str::<&RawValue>(&text)?;
        Ok(Self { text })
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Default for Json {
    fn default() -> Self {
        Self {
            text: "null".to_owned(),
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.text).map_err(ser::Error::custom)?;
        raw.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(d).map_err(de::Error::custom)?;
        Ok(Self {
            text: Box::<str>::from(raw).into(),
        })
    }
}

impl prost::Message for Json {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::string::encode(1, &self.text, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::string::merge(wire_type, &mut self.text, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        encoding::string::encoded_len(1, &self.text)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_as_written() {
        let text = r#"{"a":1.10,"b":18446744073709551617,"c":1e400}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
    }
}
