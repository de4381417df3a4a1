//! The rule set. Where a rule has a group, the group is the secret and the rest is its frame.

/// Names and patterns. All are ASCII-only: `(?-u:...)` keeps word boundaries cheap.
pub(super) const RULES: &[(&str, &str)] = &[
    (
        "age-secret-key",
        r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
    ),
    (
        "anthropic-api-key",
        r"(?-u:\b)sk-ant-[A-Za-z0-9]{2,12}-[A-Za-z0-9_-]{20,}",
    ),
    ("atlassian-api-token", r"(?-u:\b)ATATT3[A-Za-z0-9_=-]{50,}"),
    (
        "aws-access-key-id",
        r"(?-u:\b)((?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})(?-u:\b)",
    ),
    (
        "aws-secret-access-key",
        r#"(?i)aws[a-z_. -]{0,20}(?:secret|key)[a-z_. -]{0,20}["']?[ \t]*(?:=>|:=|=|:)[ \t]*["']?([A-Za-z0-9/+]{40})(?:["'\s,;]|$)"#,
    ),
    ("azure-storage-key", r"(?i)AccountKey=([A-Za-z0-9/+]{86}==)"),
    (
        "bitbucket-app-password",
        r"(?-u:\b)ATBB[A-Za-z0-9]{32}(?-u:\b)",
    ),
    ("crates-io-token", r"(?-u:\b)cio[A-Za-z0-9]{32}(?-u:\b)"),
    ("databricks-token", r"(?-u:\b)dapi[a-f0-9]{32}(?-u:\b)"),
    (
        "digitalocean-token",
        r"(?-u:\b)do[opr]_v1_[a-f0-9]{64}(?-u:\b)",
    ),
    (
        "docker-token",
        r"(?-u:\b)dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,}",
    ),
    (
        "github-token",
        r"(?-u:\b)gh[opusr]_[A-Za-z0-9]{36,255}(?-u:\b)",
    ),
    (
        "github-fine-grained-token",
        r"(?-u:\b)github_pat_[A-Za-z0-9_]{36,255}(?-u:\b)",
    ),
    (
        "gitlab-token",
        r"(?-u:\b)(?:gl(?:pat|ptt|dt|rt|rtr|cbt|ft|soat|imt|agent|oas)|GR1348941)-?[A-Za-z0-9_-]{20,}",
    ),
    (
        "google-api-key",
        r"(?-u:\b)AIza[A-Za-z0-9_-]{35}(?:[^A-Za-z0-9_-]|$)",
    ),
    ("google-oauth-secret", r"(?-u:\b)GOCSPX-[A-Za-z0-9_-]{28}"),
    ("grafana-token", r"(?-u:\b)gl(?:sa|c)_[A-Za-z0-9+/_=]{32,}"),
    ("groq-api-key", r"(?-u:\b)gsk_[A-Za-z0-9]{52}(?-u:\b)"),
    (
        "hashicorp-vault-token",
        r"(?-u:\b)hv[sbr]\.[A-Za-z0-9_-]{90,}",
    ),
    (
        "huggingface-token",
        r"(?-u:\b)(?:hf|api_org)_[A-Za-z0-9]{34}(?-u:\b)",
    ),
    ("linear-api-key", r"(?-u:\b)lin_api_[A-Za-z0-9]{40}(?-u:\b)"),
    ("npm-token", r"(?-u:\b)npm_[A-Za-z0-9]{36}(?-u:\b)"),
    (
        "openai-api-key",
        r"(?-u:\b)sk-(?:proj|svcacct|admin|None|or-v1)-[A-Za-z0-9_-]{20,}",
    ),
    (
        "private-key",
        r"-----BEGIN[ A-Z0-9_-]{0,100}PRIVATE KEY(?: BLOCK)?-----",
    ),
    ("putty-private-key", r"PuTTY-User-Key-File-[23]:"),
    ("pypi-token", r"(?-u:\b)pypi-AgE[A-Za-z0-9_-]{50,}"),
    ("rubygems-token", r"(?-u:\b)rubygems_[a-f0-9]{48}(?-u:\b)"),
    (
        "sendgrid-token",
        r"(?-u:\b)SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    ),
    (
        "shopify-token",
        r"(?-u:\b)shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}(?-u:\b)",
    ),
    ("sk-api-key", r"(?-u:\b)sk-[A-Za-z0-9]{32,}(?-u:\b)"),
    (
        "slack-token",
        r"(?-u:\b)xox[abeoprs]-(?:[A-Za-z0-9]+-)*[A-Za-z0-9]{10,}",
    ),
    (
        "slack-app-token",
        r"(?-u:\b)xapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-f0-9]{32,}",
    ),
    (
        "slack-webhook",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,}",
    ),
    (
        "stripe-key",
        r"(?-u:\b)(?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{16,}(?-u:\b)",
    ),
    (
        "telegram-bot-token",
        r"(?-u:\b)[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?:[^A-Za-z0-9_-]|$)",
    ),
    (
        "terraform-token",
        r"(?-u:\b)[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}",
    ),
    ("twilio-api-key", r"(?-u:\b)SK[0-9a-f]{32}(?-u:\b)"),
    ("xai-api-key", r"(?-u:\b)xai-[A-Za-z0-9]{60,}(?-u:\b)"),
];
