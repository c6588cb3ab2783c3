"""The ports on AWS: DynamoDB, S3, EC2, EventBridge, SSM. Their clients come from `clients` alone."""
