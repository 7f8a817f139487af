"""`bff cognito`: a stack of deploy/cognito/template.yaml as settings, and users to try it with.

Nothing of the server needs it; it speaks to AWS through boto3, the optional extra `cognito`.
"""
