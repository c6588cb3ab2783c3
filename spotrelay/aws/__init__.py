"""The ports on AWS: DynamoDB, S3, EC2, EventBridge, SSM. Nowhere else is botocore imported."""
