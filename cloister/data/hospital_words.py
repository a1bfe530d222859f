"""The vocabulary of the synthetic hospitals' notes: complaints, history and remarks.

It was written for this project in everyday clinical English; it describes no real patient
and is not medical advice. A complaint lists wordings of one thing, separated by ` | `, each a noun
phrase that fits after "presents with" and, without its article, after "no"; `{side}` becomes left
or right. A condition fits after "known" and "a history of".
"""

from __future__ import annotations

# Complaints that mostly one department sees.
COMPLAINTS: dict[str, tuple[str, ...]] = {
    "cardiology": (
        "crushing central chest pain | heavy pressure behind the sternum | a vice-like chest ache",
        "pain spreading to the {side} arm and jaw | chest ache going down the {side} arm",
        "a fast irregular pulse | an irregularly irregular heartbeat | skipped heartbeats",
        "breathlessness lying flat | needing four pillows at night | waking up gasping",
        "a new heart murmur | a loud systolic murmur",
        "blood pressure of 210 over 115 | very high blood pressure readings at home",
        "calf pain on walking | cramping calves that ease with rest",
    ),
    "dermatology": (
        "scaly plaques on the elbows | silvery patches on both knees | flaking plaques",
        "a mole that changed colour | a growing dark spot on the {side} shoulder",
        "weeping eczema on the hands | cracked and oozing skin in the elbow folds",
        "painful blisters in a band on the {side} flank | clusters of blisters on one side",
        "patchy hair loss | bald patches on the scalp",
        "cystic acne on the face | deep painful spots on the cheeks and back",
        "wheals after a new soap | raised itchy welts that come and go",
    ),
    "ent": (
        "hearing loss in the {side} ear | a blocked {side} ear | muffled hearing",
        "a nosebleed that will not stop | repeated nosebleeds | bleeding from the {side} nostril",
        "a hoarse voice | loss of voice | a rough voice that does not recover",
        "ringing in the {side} ear | constant tinnitus",
        "facial pressure and green nasal discharge | blocked sinuses with thick discharge",
        "a peritonsillar swelling | one swollen tonsil and a muffled voice",
        "a fish bone stuck in the throat | a bead in the {side} nostril",
    ),
    "gastroenterology": (
        "black tarry stools | passing dark sticky stools",
        "burning behind the breastbone after meals | acid coming up when lying down",
        "yellow eyes and dark urine | jaundice noticed by the family",
        "bloody diarrhoea | loose stools with blood and mucus | ten bloody stools a day",
        "right upper belly pain after fatty food | colicky pain under the right ribs",
        "a swollen belly full of fluid | tense ascites",
        "vomiting of coffee-ground fluid | vomiting fresh blood",
    ),
    "neurology": (
        "sudden {side} facial droop | slurred speech and a drooping mouth",
        "a first seizure | a witnessed fit with tongue biting | jerking of all limbs",
        "a one-sided throbbing headache with zigzag lights | migraine with visual aura",
        "a resting tremor of the {side} hand | slow shuffling steps and a tremor",
        "double vision | loss of vision in one half of the field",
        "increasing forgetfulness | getting lost in familiar streets",
        "electric shocks in the face when chewing | stabbing pain in the {side} cheek",
    ),
    "orthopaedics": (
        "a swollen {side} knee after twisting it | a {side} knee that locks",
        "a deformed {side} wrist after a fall | {side} wrist pain after landing on the hand",
        "{side} hip pain and a shortened leg | being unable to stand after a fall on the hip",
        "a {side} shoulder out of joint | {side} shoulder pain when lifting the arm",
        "a rolled {side} ankle | {side} ankle swelling after a football game",
        "stiff painful joints in the morning | grinding pain in the {side} hip on stairs",
        "a crushed {side} finger | a jammed {side} thumb",
    ),
    "paediatrics": (
        "poor feeding and fewer wet nappies | refusing the bottle",
        "a barking cough at night | noisy breathing in when crying",
        "a fit during a high temperature | a short convulsion with fever",
        "slow weight gain | falling off the growth chart",
        "not yet walking or talking | slow development noticed at nursery",
        "bedwetting after being dry | soiling at nursery",
        "spots after contact with chickenpox | missed vaccinations and measles contact",
    ),
    "psychiatry": (
        "low mood and no interest in anything | feeling hopeless",
        "thoughts of ending life | an overdose of tablets | a wish not to wake up",
        "hearing voices | voices that give orders | a belief of being followed",
        "sudden attacks of fear in crowds | constant worry | panic in shops",
        "no need for sleep and reckless spending | racing thoughts and grand plans",
        "checking the stove for hours | washing the hands all day",
        "eating very little for fear of weight gain | bingeing and making oneself sick",
    ),
    "respiratory": (
        "a productive cough with green sputum | bringing up rusty phlegm",
        "wheeze that the inhaler does not relieve | tight wheezy breathing",
        "coughing up blood | streaks of blood in the sputum",
        "sharp pain in the {side} side on breathing in | pain with every deep breath",
        "low oxygen levels on air | saturation of 86 percent",
        "loud snoring with pauses in breathing | falling asleep at the wheel",
        "night sweats and a cough for months | a cough after contact with tuberculosis",
    ),
    "urology": (
        "{side} loin pain going to the groin | waves of {side} flank pain",
        "blood in the urine | pink urine with clots | red urine without pain",
        "burning on passing water | stinging urine and frequency",
        "being unable to pass urine | a painful full bladder | a blocked catheter",
        "gravel in the urine | passing small stones",
        "a weak stream and dribbling | getting up five times a night to pass water",
        "leaking urine on coughing | urgency with leaks before reaching the toilet",
    ),
}

# Complaints that several departments see; the note often does not decide which.
SHARED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "chest tightness | an uneasy feeling in the chest | chest discomfort",
        ("cardiology", "respiratory", "gastroenterology", "psychiatry"),
    ),
    (
        "shortness of breath | trouble breathing | getting out of breath easily",
        ("cardiology", "respiratory", "psychiatry", "paediatrics"),
    ),
    ("a racing heart | palpitations", ("cardiology", "psychiatry")),
    ("dizzy spells | light-headedness | feeling the room spin", ("neurology", "ent", "cardiology")),
    ("a dull headache | pressure in the head", ("neurology", "ent", "psychiatry")),
    (
        "tiredness | no energy | feeling worn out",
        ("cardiology", "gastroenterology", "psychiatry", "respiratory"),
    ),
    ("low back pain | an aching back", ("orthopaedics", "urology", "neurology")),
    ("lower belly pain | abdominal cramps", ("gastroenterology", "urology", "paediatrics")),
    (
        "fever | a high temperature | chills and sweating",
        ("paediatrics", "respiratory", "urology", "ent"),
    ),
    ("a red rash | spots on the trunk | blotchy skin", ("dermatology", "paediatrics")),
    ("tingling in the {side} hand | a numb {side} arm", ("neurology", "orthopaedics")),
    ("weakness of the {side} leg | a {side} leg that gives way", ("neurology", "orthopaedics")),
    ("a dry cough | a tickly cough", ("respiratory", "ent", "paediatrics", "gastroenterology")),
    (
        "poor sleep | waking at night | insomnia",
        ("psychiatry", "neurology", "respiratory", "urology"),
    ),
    ("a collapse | a brief loss of consciousness | a faint", ("cardiology", "neurology")),
    ("trouble swallowing | food sticking", ("gastroenterology", "ent", "neurology")),
    ("itching all over | scratching at night", ("dermatology", "gastroenterology")),
    ("a limp | {side} knee pain at night", ("orthopaedics", "paediatrics")),
    ("vomiting | nausea and being sick", ("gastroenterology", "paediatrics", "neurology")),
    ("a swollen {side} lower leg | swollen ankles", ("cardiology", "dermatology", "orthopaedics")),
    ("weight loss | poor appetite", ("gastroenterology", "psychiatry", "respiratory")),
    ("a sore throat | earache", ("ent", "paediatrics")),
)

# Long-standing conditions of adults, by the department that follows them.
CONDITIONS: dict[str, tuple[str, ...]] = {
    "cardiology": ("atrial fibrillation", "heart failure", "stent in 2019", "hypertension"),
    "dermatology": ("psoriasis", "eczema", "removed melanoma", "rosacea"),
    "ent": ("chronic sinusitis", "hearing aids", "Meniere disease", "nasal polyps"),
    "gastroenterology": ("Crohn disease", "reflux", "fatty liver", "gallstones"),
    "neurology": ("epilepsy", "migraine", "stroke in 2020", "multiple sclerosis"),
    "orthopaedics": ("osteoarthritis", "hip replacement", "osteoporosis", "gout"),
    "psychiatry": ("depression", "anxiety disorder", "bipolar disorder", "alcohol misuse"),
    "respiratory": ("asthma", "COPD", "sleep apnoea", "old pulmonary embolism"),
    "urology": ("kidney stones", "neurogenic bladder", "recurrent cystitis", "one kidney"),
}

# Conditions that belong to no department.
COMMON_CONDITIONS = ("type 2 diabetes", "underactive thyroid", "iron deficiency", "smoking")
CHILD_CONDITIONS = ("premature birth", "eczema", "asthma", "nut allergy", "grommets", "squint")

# Remarks that fit any patient.
REMARKS = (
    "observations stable",
    "bloods sent",
    "awaiting review",
    "no allergies",
    "analgesia given",
    "seen last month for the same",
    "family very worried",
    "walked in",
    "brought by ambulance",
    "sent by the GP",
    "worse since last night",
    "comes and goes",
    "getting worse",
    "not better with tablets",
    "interpreter needed",
    "bed requested",
    "triage category 3",
)


def wordings(entry: str) -> list[str]:
    """Returns the different wordings of one entry."""
    return entry.split(" | ")
