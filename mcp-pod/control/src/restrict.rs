//! Restricts a policy that this version does not understand.
//!
//! While an older operator leads, the policy in force may be one that a newer operator compiled. The older one cannot
//! decode it, and to compile its own would drop restrictions that it does not know. But it can stop calls: it sets the few
//! fields below and keeps every other byte as it is, so that gateways of the newer version read the rest as it was written.
//!
//! Therefore later versions keep the numbers, types and meanings of these fields in `policy.proto`: `tenant_uid`,
//! `generation`, `suspended` and `principals` of `Policy`, and `uid`, `suspended` and `revoked_until` of `Principal`.

use crate::codec::{Digest, EncodedPolicy};

/// `Policy.tenant_uid`.
const TENANT_UID: u64 = 3;
/// `Policy.generation`.
const GENERATION: u64 = 4;
/// `Policy.suspended`.
const SUSPENDED: u64 = 5;
/// `Policy.principals`.
const PRINCIPALS: u64 = 14;
/// `Principal.uid`.
const PRINCIPAL_UID: u64 = 3;
/// `Principal.suspended`.
const PRINCIPAL_SUSPENDED: u64 = 4;
/// `Principal.revoked_until`.
const PRINCIPAL_REVOKED_UNTIL: u64 = 5;

/// What is to be in force for a principal, at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restriction {
    /// Whether every call is refused.
    pub suspended: bool,
    /// Tokens with `iat` at or before this Unix second are refused.
    pub revoked_until: Option<i64>,
}

/// The bytes are not a protobuf message, or have a field of an unexpected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to restrict the policy: it is not a message of the expected form")]
pub struct Malformed;

/// Returns the UID of the policy's tenant.
pub fn tenant_uid(policy: &[u8]) -> Result<String, Malformed> {
    match Message::parse(policy)?.get(TENANT_UID) {
        Some(Value::Bytes(uid)) => String::from_utf8(uid.clone()).map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

/// Returns the policy with the restrictions and with this generation; none if it has them already. A restriction of the
/// policy itself stays, whatever the arguments are.
pub fn restrict(
    policy: &[u8],
    generation: u64,
    suspend: bool,
    of_principal: impl Fn(&str) -> Restriction,
) -> Result<Option<EncodedPolicy>, Malformed> {
    let mut message = Message::parse(policy)?;
    let mut changed = suspend && message.raise(SUSPENDED, 1)?;
    for field in message.0.iter_mut().filter(|field| field.number == PRINCIPALS) {
        let Value::Bytes(principal) = &mut field.value else { return Err(Malformed) };
        changed |= restrict_principal(principal, &of_principal)?;
    }
    if !changed {
        return Ok(None);
    }
    message.set(GENERATION, Value::Varint(generation));
    let bytes = message.encode();
    Ok(Some(EncodedPolicy { digest: Digest::of(&bytes), bytes }))
}

fn restrict_principal(bytes: &mut Vec<u8>, of: &impl Fn(&str) -> Restriction) -> Result<bool, Malformed> {
    let mut message = Message::parse(bytes)?;
    let uid = match message.get(PRINCIPAL_UID) {
        Some(Value::Bytes(uid)) => std::str::from_utf8(uid).map_err(|_| Malformed)?,
        _ => return Err(Malformed),
    };
    let Restriction { suspended, revoked_until } = of(uid);
    let mut changed = suspended && message.raise(PRINCIPAL_SUSPENDED, 1)?;
    if let Some(until) = revoked_until {
        let before = match message.get(PRINCIPAL_REVOKED_UNTIL) {
            Some(Value::Varint(before)) => Some(before.cast_signed()),
            Some(_) => return Err(Malformed),
            None => None,
        };
        if before.is_none_or(|before| before < until) {
            message.set(PRINCIPAL_REVOKED_UNTIL, Value::Varint(until.cast_unsigned()));
            changed = true;
        }
    }
    if changed {
        *bytes = message.encode();
    }
    Ok(changed)
}

/// A message as its fields, in order.
struct Message(Vec<Field>);

struct Field {
    number: u64,
    value: Value,
}

enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

impl Message {
    fn parse(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let value = match key & 7 {
                0 => Value::Varint(varint(&mut bytes)?),
                1 => Value::Fixed64(take(&mut bytes, 8)?.try_into().map_err(|_| Malformed)?),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).map_err(|_| Malformed)?;
                    Value::Bytes(take(&mut bytes, length)?.to_vec())
                }
                5 => Value::Fixed32(take(&mut bytes, 4)?.try_into().map_err(|_| Malformed)?),
                _ => return Err(Malformed),
            };
            fields.push(Field { number: key >> 3, value });
        }
        Ok(Self(fields))
    }

    fn get(&self, number: u64) -> Option<&Value> {
        self.0.iter().rev().find(|field| field.number == number).map(|field| &field.value)
    }

    /// Raises a number. Returns whether it was lower.
    fn raise(&mut self, number: u64, to: u64) -> Result<bool, Malformed> {
        match self.get(number) {
            Some(Value::Varint(before)) if *before >= to => Ok(false),
            Some(Value::Varint(_)) | None => {
                self.set(number, Value::Varint(to));
                Ok(true)
            }
            Some(_) => Err(Malformed),
        }
    }

    /// Sets a field, in the order of the numbers.
    fn set(&mut self, number: u64, value: Value) {
        self.0.retain(|field| field.number != number);
        let place = self.0.iter().position(|field| field.number > number).unwrap_or(self.0.len());
        self.0.insert(place, Field { number, value });
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Field { number, value } in &self.0 {
            let key = number << 3;
            match value {
                Value::Varint(number) => {
                    put_varint(&mut bytes, key);
                    put_varint(&mut bytes, *number);
                }
                Value::Fixed64(value) => {
                    put_varint(&mut bytes, key | 1);
                    bytes.extend_from_slice(value);
                }
                Value::Bytes(value) => {
                    put_varint(&mut bytes, key | 2);
                    put_varint(&mut bytes, value.len() as u64);
                    bytes.extend_from_slice(value);
                }
                Value::Fixed32(value) => {
                    put_varint(&mut bytes, key | 5);
                    bytes.extend_from_slice(value);
                }
            }
        }
        bytes
    }
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Result<&'b [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}
