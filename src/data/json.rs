//! A value's text.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A value as JSON text. A short one, such as a number, is kept in place; clones share a longer one.
#[derive(Clone)]
pub(crate) struct Json(Text);

#[derive(Clone)]
enum Text {
    Short { len: u8, text: [u8; SHORT] },
    Long(Arc<[u8]>),
}

/// So much is no larger than a pointer to more, with what tells them apart.
const SHORT: usize = 22;

impl Deref for Json {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Text::Short { len, text } => &text[..usize::from(*len)],
            Text::Long(text) => text,
        }
    }
}

impl From<&[u8]> for Json {
    fn from(json: &[u8]) -> Self {
        let mut text = [0; SHORT];
        Self(
            match (text.get_mut(..json.len()), u8::try_from(json.len())) {
                (Some(place), Ok(len)) => {
                    place.copy_from_slice(json);
                    Text::Short { len, text }
                }
                _ => Text::Long(json.into()),
            },
        )
    }
}

/// Without the value (S-10).
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Json")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_its_text_whatever_its_length() {
        let text = b"\"0123456789012345678901234567890\"";
        for len in 0..text.len() {
            let json = Json::from(&text[..len]);
            assert_eq!(&*json, &text[..len]);
            assert_eq!(&*json.clone(), &text[..len]);
            assert_eq!(matches!(json.0, Text::Short { .. }), len <= SHORT);
        }
        #[cfg(target_pointer_width = "64")]
        assert_eq!(size_of::<Json>(), 24);
    }
}
