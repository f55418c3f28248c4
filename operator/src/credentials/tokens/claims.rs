//! What a token says (RFC 9068 form), and its signature (ES256).

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::keys::TenantKeys;

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("failed to sign a token")]
pub(crate) struct TokenError(#[from] jsonwebtoken::errors::Error);

/// The claims of a managed principal's token. There are no scopes in it: they are read live from policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The tenant's future token service.
    pub iss: String,
    /// The origin of the tenant's endpoint.
    pub aud: String,
    /// `<namespace>/<name>` of the principal.
    pub sub: String,
    /// Names this token: a ULID.
    pub jti: String,
    /// Issued at, Unix seconds.
    pub iat: i64,
    /// Expires at, Unix seconds.
    pub exp: i64,
    /// What only we need.
    pub mcp_fleet: McpFleetClaims,
}

/// The private claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpFleetClaims {
    /// The principal's UID.
    pub principal: String,
    /// The tenant's UID.
    pub tenant: String,
    /// Counts the credentials of the principal.
    pub serial: i64,
}

/// Signs the claims with the tenant's key.
pub(crate) fn sign(claims: &Claims, keys: &TenantKeys) -> Result<String, TokenError> {
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some("at+jwt".into());
    header.kid = Some(keys.kid.clone());
    Ok(encode(&header, claims, &EncodingKey::from_ec_der(&keys.pkcs8))?)
}

/// Reads the key id and the claims of a token that the tenant's key signed, expired or not. Others may write the Secret
/// that it is kept in, so nothing in a token of another signature is believed.
pub(crate) fn verify(token: &str, keys: &TenantKeys) -> Option<(String, Claims)> {
    let mut rules = Validation::new(Algorithm::ES256);
    // Whom it is for and when it ends is compared with what is wanted, so that it can be told what is wrong.
    (rules.validate_exp, rules.validate_aud) = (false, false);
    let data = decode::<Claims>(token, &DecodingKey::from_ec_der(&keys.point), &rules).ok()?;
    Some((data.header.kid?, data.claims))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::decode_header;

    use super::*;

    fn claims() -> Claims {
        Claims {
            iss: "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/u-1".into(),
            aud: "https://gateway.acme-mcp.svc".into(),
            sub: "acme/coder".into(),
            jti: "01JD0000000000000000000000".into(),
            iat: 1_795_000_000,
            exp: 4_102_444_800,
            mcp_fleet: McpFleetClaims { principal: "p-1".into(), tenant: "u-1".into(), serial: 7 },
        }
    }

    #[test]
    fn a_token_verifies_with_the_tenants_point_and_with_no_other() {
        let (ours, theirs) = (TenantKeys::generate().unwrap(), TenantKeys::generate().unwrap());
        let token = sign(&claims(), &ours).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&["https://gateway.acme-mcp.svc"]);
        let read = |keys: &TenantKeys| decode::<Claims>(&token, &DecodingKey::from_ec_der(&keys.point), &rules);
        assert_eq!(read(&ours).unwrap().claims, claims());
        assert!(read(&theirs).is_err());
    }

    #[test]
    fn the_header_names_type_algorithm_and_key() {
        let keys = TenantKeys::generate().unwrap();
        let header = decode_header(sign(&claims(), &keys).unwrap()).unwrap();
        assert_eq!((header.typ.as_deref(), header.alg, header.kid), (Some("at+jwt"), Algorithm::ES256, Some(keys.kid)));
    }

    #[test]
    fn a_token_of_ours_can_be_read_back_after_its_end_too() {
        let keys = TenantKeys::generate().unwrap();
        let ended = Claims { exp: 1_795_000_060, ..claims() };
        let token = sign(&ended, &keys).unwrap();
        assert_eq!(verify(&token, &keys), Some((keys.kid.clone(), ended)));
        assert_eq!(verify("rubbish", &keys), None);
    }

    #[test]
    fn claims_that_were_edited_are_not_believed() {
        let keys = TenantKeys::generate().unwrap();
        let (honest, forged) = (sign(&claims(), &keys).unwrap(), Claims { iat: -10, exp: i64::MAX, ..claims() });
        let forged = sign(&forged, &TenantKeys { kid: keys.kid.clone(), ..TenantKeys::generate().unwrap() }).unwrap();
        assert_eq!(verify(&forged, &keys), None);
        let signature = honest.rsplit('.').next().unwrap();
        let spliced = format!("{}.{signature}", forged.rsplit_once('.').unwrap().0);
        assert_eq!(verify(&spliced, &keys), None);
    }

    #[test]
    fn private_claims_are_one_object() {
        let json = serde_json::to_value(claims()).unwrap();
        assert_eq!(json["mcp_fleet"], serde_json::json!({"principal": "p-1", "tenant": "u-1", "serial": 7}));
    }
}
