# Amazon Cognito for the BFF and its API: the same as template.yaml beside this file, for Terraform.
# A test compares the two, member by member: change both.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Managed login branding and refresh token rotation.
      version = ">= 6.20, < 7"
    }
  }
}

variable "environment" {
  description = "One state, and so one pool with its own users and secrets, for each."
  type        = string
  default     = "dev"
  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "environment is dev or prod."
  }
}

variable "public_url" {
  description = "The origin that browsers use for the BFF (BFF_PUBLIC_URL), without a slash at its end. Plain http is for localhost only."
  type        = string
  default     = "http://localhost:5003"
  validation {
    condition     = can(regex("^(https://[a-z0-9.-]+(:[0-9]+)?|http://localhost(:[0-9]+)?)$", var.public_url))
    error_message = "public_url is an https origin, or http://localhost with a port, without a slash at its end."
  }
}

variable "domain_prefix" {
  description = "The sign-in pages are at https://PREFIX.auth.REGION.amazoncognito.com; the prefix must be free in the whole region. Without effect where custom_domain is set."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.domain_prefix))
    error_message = "domain_prefix is made of small letters, digits and hyphens."
  }
}

variable "custom_domain" {
  description = "A host name of your own for the sign-in pages, such as auth.example.com; or nothing."
  type        = string
  default     = ""
}

variable "certificate_arn" {
  description = "The certificate of custom_domain, in us-east-1 whatever the pool's region; or nothing."
  type        = string
  default     = ""
}

variable "feature_plan" {
  description = "LITE has neither refresh token rotation nor the sign-in pages that know prompt and lang. PLUS adds threat protection."
  type        = string
  default     = "ESSENTIALS"
  validation {
    condition     = contains(["ESSENTIALS", "PLUS"], var.feature_plan)
    error_message = "feature_plan is ESSENTIALS or PLUS."
  }
}

variable "api_identifier" {
  description = "The API as a resource server. Its scope is the identifier, a slash and the scope's name."
  type        = string
  default     = "api://weather"
}

variable "api_scope_name" {
  description = "The name of the API's scope, the part behind the slash."
  type        = string
  default     = "access"
}

variable "access_token_minutes" {
  description = "Lifetime of access and ID tokens. An access token cannot be called back: this is how long a stolen one works."
  type        = number
  default     = 5
  validation {
    condition     = var.access_token_minutes >= 5 && var.access_token_minutes <= 15
    error_message = "access_token_minutes is a number from 5 to 15."
  }
}

variable "refresh_token_days" {
  description = "How long a sign-in can last at most. The BFF ends its own session sooner (BFF_SESSION_MAX_SECONDS)."
  type        = number
  default     = 1
  validation {
    condition     = var.refresh_token_days >= 1 && var.refresh_token_days <= 365
    error_message = "refresh_token_days is a number from 1 to 365."
  }
}

resource "aws_cognito_user_pool" "user_pool" {
  name                     = "bff-${var.environment}"
  user_pool_tier           = var.feature_plan
  deletion_protection      = var.environment == "prod" ? "ACTIVE" : "INACTIVE"
  username_attributes      = ["email"]
  auto_verified_attributes = ["email"]

  username_configuration {
    case_sensitive = false
  }

  admin_create_user_config {
    allow_admin_create_user_only = false
  }

  verification_message_template {
    default_email_option = "CONFIRM_WITH_CODE"
  }

  # A new address counts from when its owner has confirmed it; until then the old one signs in.
  user_attribute_update_settings {
    attributes_require_verification_before_update = ["email"]
  }

  account_recovery_setting {
    recovery_mechanism {
      name     = "verified_email"
      priority = 1
    }
  }

  password_policy {
    minimum_length                   = 12
    require_lowercase                = true
    require_uppercase                = true
    require_numbers                  = true
    require_symbols                  = true
    temporary_password_validity_days = 7
  }
}

resource "aws_cognito_user_pool_domain" "domain" {
  user_pool_id    = aws_cognito_user_pool.user_pool.id
  domain          = var.custom_domain != "" ? var.custom_domain : var.domain_prefix
  certificate_arn = var.custom_domain != "" ? var.certificate_arn : null
  # 2 is managed login; the pages of 1 know neither prompt nor lang.
  managed_login_version = 2

  lifecycle {
    precondition {
      condition     = (var.custom_domain == "") == (var.certificate_arn == "")
      error_message = "custom_domain and certificate_arn go together."
    }
  }
}

resource "aws_cognito_resource_server" "resource_server" {
  user_pool_id = aws_cognito_user_pool.user_pool.id
  identifier   = var.api_identifier
  name         = "weather"

  scope {
    scope_name        = var.api_scope_name
    scope_description = "Call the weather API"
  }
}

resource "aws_cognito_user_group" "admins_group" {
  user_pool_id = aws_cognito_user_pool.user_pool.id
  name         = "admins"
  description  = "May see what /weather/admin shows"
  precedence   = 1
}

resource "aws_cognito_user_group" "readers_group" {
  user_pool_id = aws_cognito_user_pool.user_pool.id
  name         = "readers"
  description  = "May see the weather"
  precedence   = 10
}

# Cognito demands PKCE of no client: the BFF always sends it, with S256.
resource "aws_cognito_user_pool_client" "app_client" {
  user_pool_id                         = aws_cognito_user_pool.user_pool.id
  name                                 = "bff"
  generate_secret                      = true
  supported_identity_providers         = ["COGNITO"]
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_flows                  = ["code"]
  # Without aws.cognito.signin.user.admin: a token made for the API must not change the account.
  allowed_oauth_scopes = ["openid", "email", "profile", "${var.api_identifier}/${var.api_scope_name}"]
  callback_urls        = ["${var.public_url}/bff/callback"]
  logout_urls          = ["${var.public_url}/"]
  # Rotation and ALLOW_REFRESH_TOKEN_AUTH exclude each other, and the latter is in Cognito's default.
  explicit_auth_flows           = ["ALLOW_USER_SRP_AUTH"]
  enable_token_revocation       = true
  prevent_user_existence_errors = "ENABLED"
  access_token_validity         = var.access_token_minutes
  id_token_validity             = var.access_token_minutes
  refresh_token_validity        = var.refresh_token_days
  read_attributes               = ["email", "email_verified", "name", "given_name", "family_name"]
  write_attributes              = ["email", "name", "given_name", "family_name"]

  refresh_token_rotation {
    feature = "ENABLED"
    # The most there is: a server that died between the answer and its store can ask again.
    retry_grace_period_seconds = 60
  }

  token_validity_units {
    access_token  = "minutes"
    id_token      = "minutes"
    refresh_token = "days"
  }

  depends_on = [aws_cognito_resource_server.resource_server] # Cognito refuses a scope that does not exist yet
}

# Managed login shows an error page to every client that has no style of its own.
resource "aws_cognito_managed_login_branding" "branding" {
  user_pool_id                = aws_cognito_user_pool.user_pool.id
  client_id                   = aws_cognito_user_pool_client.app_client.id
  use_cognito_provided_values = true

  depends_on = [aws_cognito_user_pool_domain.domain]
}

# Cognito refuses client_credentials to a client that has the code grant, so it is a second one.
resource "aws_cognito_user_pool_client" "service_client" {
  user_pool_id                         = aws_cognito_user_pool.user_pool.id
  name                                 = "bff-service"
  generate_secret                      = true
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_flows                  = ["client_credentials"]
  allowed_oauth_scopes                 = ["${var.api_identifier}/${var.api_scope_name}"]
  explicit_auth_flows                  = ["ALLOW_REFRESH_TOKEN_AUTH"] # none that signs a user in
  enable_token_revocation              = true
  prevent_user_existence_errors        = "ENABLED"
  access_token_validity                = var.access_token_minutes

  token_validity_units {
    access_token = "minutes"
  }

  depends_on = [aws_cognito_resource_server.resource_server]
}

output "USER_POOL_ID" {
  description = "The user pool."
  value       = aws_cognito_user_pool.user_pool.id
}

output "SIGN_IN_DOMAIN" {
  description = "Host of the sign-in pages, or its prefix."
  value       = aws_cognito_user_pool_domain.domain.domain
}

output "BFF_PUBLIC_URL" {
  description = "BFF_PUBLIC_URL"
  value       = var.public_url
}

output "BFF_OIDC_ISSUER" {
  description = "BFF_OIDC_ISSUER"
  value       = "https://${aws_cognito_user_pool.user_pool.endpoint}"
}

output "BFF_OIDC_CLIENT_ID" {
  description = "BFF_OIDC_CLIENT_ID"
  value       = aws_cognito_user_pool_client.app_client.id
}

output "BFF_OIDC_CLIENT_SECRET" {
  description = "BFF_OIDC_CLIENT_SECRET. It lies in the state, too: keep that as you keep secrets."
  value       = aws_cognito_user_pool_client.app_client.client_secret
  sensitive   = true
}

output "BFF_OIDC_SCOPE" {
  description = "BFF_OIDC_SCOPE"
  value       = "openid email profile ${var.api_identifier}/${var.api_scope_name}"
}

output "BFF_SERVICE_CLIENT_ID" {
  description = "BFF_SERVICE_CLIENT_ID"
  value       = aws_cognito_user_pool_client.service_client.id
}

output "BFF_SERVICE_CLIENT_SECRET" {
  description = "BFF_SERVICE_CLIENT_SECRET. It lies in the state, too."
  value       = aws_cognito_user_pool_client.service_client.client_secret
  sensitive   = true
}

output "API_ISSUER" {
  description = "API_ISSUER"
  value       = "https://${aws_cognito_user_pool.user_pool.endpoint}"
}

output "API_CLIENT_IDS" {
  description = "API_CLIENT_IDS"
  value       = "${aws_cognito_user_pool_client.app_client.id},${aws_cognito_user_pool_client.service_client.id}"
}

output "API_SCOPE" {
  description = "API_SCOPE"
  value       = "${var.api_identifier}/${var.api_scope_name}"
}
