//! The claims of a token (in the form of RFC 9068) and its signature (ES256).

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::keys::TenantKeys;

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("failed to sign a token")]
pub struct TokenError(#[from] jsonwebtoken::errors::Error);

/// Claims of a managed principal's token. They contain no scopes: the gateway takes those from the current policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer: URL reserved for the tenant's future token service.
    pub iss: String,
    /// Audience: origin of the tenant's endpoint.
    pub aud: String,
    /// Subject: `<namespace>/<name>` of the principal.
    pub sub: String,
    /// Unique identifier of the token: a ULID.
    pub jti: String,
    /// Time of issue, Unix seconds.
    pub iat: i64,
    /// Time of expiry, Unix seconds.
    pub exp: i64,
    /// Claims that only MCP Fleet uses.
    pub mcp_fleet: McpFleetClaims,
}

/// Claims that only MCP Fleet uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpFleetClaims {
    /// UID of the principal.
    pub principal: String,
    /// UID of the tenant.
    pub tenant: String,
    /// Serial number of the credential, counted per principal.
    pub serial: i64,
}

/// Signs claims with the tenant's key, and returns the token.
pub fn sign(claims: &Claims, keys: &TenantKeys) -> Result<String, TokenError> {
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some("at+jwt".into());
    header.kid = Some(keys.kid.clone());
    Ok(encode(&header, claims, &EncodingKey::from_ec_der(&keys.pkcs8))?)
}

/// Verifies the signature of a token and returns its key id and claims, even if it has expired. Returns none if the
/// tenant's key did not sign it: others can write to the token's Secret, so an unverified token is not trusted.
pub fn verify(token: &str, keys: &TenantKeys) -> Option<(String, Claims)> {
    let mut rules = Validation::new(Algorithm::ES256);
    // The caller compares audience and expiry with the wanted ones, so that it can report what differs.
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
    fn a_token_verifies_only_with_the_tenants_key() {
        let (ours, theirs) = (TenantKeys::generate().unwrap(), TenantKeys::generate().unwrap());
        let token = sign(&claims(), &ours).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&["https://gateway.acme-mcp.svc"]);
        let verified = |keys: &TenantKeys| decode::<Claims>(&token, &DecodingKey::from_ec_der(&keys.point), &rules);
        assert_eq!(verified(&ours).unwrap().claims, claims());
        assert!(verified(&theirs).is_err());
    }

    #[test]
    fn the_header_names_type_algorithm_and_key() {
        let keys = TenantKeys::generate().unwrap();
        let header = decode_header(sign(&claims(), &keys).unwrap()).unwrap();
        assert_eq!((header.typ.as_deref(), header.alg, header.kid), (Some("at+jwt"), Algorithm::ES256, Some(keys.kid)));
    }

    #[test]
    fn an_expired_token_can_still_be_read() {
        let keys = TenantKeys::generate().unwrap();
        let expired = Claims { exp: 1_795_000_060, ..claims() };
        let token = sign(&expired, &keys).unwrap();
        assert_eq!(verify(&token, &keys), Some((keys.kid.clone(), expired)));
        assert_eq!(verify("not-a-token", &keys), None);
    }

    #[test]
    fn forged_claims_are_rejected() {
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
