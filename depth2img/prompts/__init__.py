"""The WebUI's prompt language: text to weighted tokens, apart from any network.

text -> comments and extra networks taken out -> AND -> schedule -> emphasis -> chunks of 75 tokens

Every stage follows WebUI 1.10.1 (modules/prompt_parser.py, modules/sd_hijack_clip.py), token for token.
"""
