"""How people write currencies: ISO 4217 codes, signs and names.

Rules: a plain dollar, pound or franc is the one most people mean; "Canadian dollars" are not.
These tables establish that an amount is *not* in another currency; an amount beside an unknown
word has no currency.
"""

from __future__ import annotations

_CODES = (  # ISO 4217, codes in use
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN "
    "BWP BYN BZD CAD CDF CHF CLP CNY COP CRC "
    "CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD "
    "HNL HTG HUF IDR ILS INR IQD IRR ISK JMD "
    "JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK "
    "MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD "
    "NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG "
    "SEK SGD SHP SLE SOS SRD SSP STN SVC SYP "
    "SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF "
    "XPF YER ZAR ZMW"
)
_SIGNS = dict(
    pair.split("=")
    for pair in "$=USD €=EUR £=GBP ¥=JPY ₹=INR ₩=KRW us$=USD a$=AUD c$=CAD hk$=HKD nz$=NZD".split()
)
_NAMES = {  # a plain dollar, pound, franc or crown is the one most people mean
    "dollar dollars bucks": "USD",
    "euro euros": "EUR",
    "pound pounds quid": "GBP",
    "yen": "JPY",
    "franc francs": "CHF",
    "rupee rupees": "INR",
    "yuan renminbi": "CNY",
    "zloty zlotys": "PLN",
    "real reais": "BRL",
    "rand": "ZAR",
    "won": "KRW",
    "baht": "THB",
    "shekel shekels": "ILS",
    "ruble rubles rouble roubles": "RUB",
}
_ADJECTIVES = {  # "50 Canadian dollars"
    "us": {"dollar": "USD"},
    "american": {"dollar": "USD"},
    "canadian": {"dollar": "CAD"},
    "australian": {"dollar": "AUD"},
    "singapore": {"dollar": "SGD"},
    "british": {"pound": "GBP"},
    "swiss": {"franc": "CHF"},
    "swedish": {"krona": "SEK", "kronor": "SEK"},
    "norwegian": {"krone": "NOK", "kroner": "NOK"},
    "danish": {"krone": "DKK", "kroner": "DKK"},
    "mexican": {"peso": "MXN"},
    "indian": {"rupee": "INR"},
    "japanese": {"yen": "JPY"},
}
CURRENCIES = {
    **{code.lower(): code for code in _CODES.split()},
    **_SIGNS,
    **{name: code for names, code in _NAMES.items() for name in names.split()},
    **{
        f"{adjective}{noun}{s}": code
        for adjective, nouns in _ADJECTIVES.items()
        for noun, code in nouns.items()
        for s in ("", "s")
    },
}
COMMON_CODES = "usd|eur|gbp|chf|jpy|cad|aud|sek|nok|dkk|pln|inr"  # also in lower case
# "two real friends", "two pound coins": no amount where the number is in words, too
_ALSO_OTHERWISE = "won|real|rand|pound"
CODE = f"(?=[A-Za-z]{{3}}(?![a-z]))(?:{'|'.join(_CODES.split())}|{COMMON_CODES})"
SIGN = f"(?:(?i:us|a|c|hk|nz)?\\$|[{''.join(c for c in _SIGNS if len(c) == 1 and c != '$')}])"
IN_WORDS = (
    f"(?i:(?:(?:{'|'.join(_ADJECTIVES)})\\s(?:dollar|pound|franc|krona|kronor|krone|kroner|peso|rupee|yen)s?"
    f"|{'|'.join(name for names in _NAMES for name in names.split())}))"
)
CLEAR = f"(?!(?i:{_ALSO_OTHERWISE})\\b){IN_WORDS}"
