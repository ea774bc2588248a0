"""Small talk: greetings, thanks, what the model is, and honest refusals of questions about the world."""

from random import Random

from . import facts, passages, summarize, words
from .passages import Source
from .summarize import Messages, message, system
from .words import pick

WHO = (
    "I am the guide, the tiny model built into localllm. I can read a short text and give its main sentence or "
    "answer a question from it. "
    "I do not know facts about the world; for that, choose a larger model with --model."
)
CANNOT = (
    "I am a tiny reading model and cannot know that. Give me a text to read, or choose a larger model with --model."
)
HELLO = "Hello! I am the guide. Give me a text and I will tell you its main point or answer a question from it."
WELCOME = "You are welcome! Give me another text whenever you like."
GOODBYE = "Goodbye! Come back when you have something to read."
WELL = "I am well, thank you. Give me a text to read."
READY = "Yes. Send me the text, and I will read it."

_TALK = {
    HELLO: (
        "hi|hello|hey|Hi!|Hello!|Hey!|Hello there|hello there!|Hi there|Hi there!|Hey there|good morning|Good "
        "morning!|good afternoon|Good evening|"
        "good evening!|Greetings|greetings!|yo|hiya|howdy|Hi, guide|Hello guide!|hello, nice to meet you|Nice to "
        "meet you|Good day|hello?|"
        "anyone there?|Are you there?|hallo|hey hey|morning|evening!|hi bot|Hello model|hello world|Hi again|start|"
        "test|ping|Hello, can you hear me?"
    ),
    WELCOME: (
        "thanks|Thanks!|thank you|Thank you!|Thank you very much|Thanks a lot!|many thanks|cheers|Great, thanks|ok "
        "thanks|Perfect, thank you|"
        "Nice, thanks!|That helps, thanks|thx|ty|Awesome|Great!|Well done|good job|Cool|nice|Perfect|Wonderful, "
        "thank you|That was helpful|"
        "Thanks for your help|I appreciate it|much appreciated|Good work!|excellent|very good"
    ),
    GOODBYE: (
        "bye|Bye!|goodbye|Goodbye!|See you|see you later|See you tomorrow!|good night|Good night!|Take care|"
        "farewell|I have to go|gotta go|"
        "that is all|That's all, bye|bye bye|Until next time|exit|quit|cya|Have a nice day|talk to you later|I'm "
        "done, bye"
    ),
    WHO: (
        "who are you?|Who are you|what are you?|What are you|What can you do?|what can you do|What can you do for "
        "me?|help|Help!|/help|"
        "Tell me about yourself|Introduce yourself.|What is your name?|what's your name|Do you have a name?|How can "
        "you help me?|What do you do?|"
        "Which model are you?|what model is this?|What kind of model are you?|Are you ChatGPT?|Are you an AI?|Are "
        "you a robot?|are you human?|"
        "How do I use you?|what should I ask you?|What are you good at?|What can I ask?|Who made you?|What is this?|"
        "What is localllm?|"
        "what is the guide?|What are your limits?|What can't you do?|How big are you?|Are you smart?|Can you help "
        "me?|How does this work?|"
        "What are your skills?|What is this program?|what is this model for?|Explain what you do|How many "
        "parameters do you have?|"
        "Do you know everything?|What do you know?|Are you connected to the internet?|Do you run on my computer?"
    ),
    WELL: (
        "How are you?|how are you|How are you today?|How is it going?|how's it going?|What's up?|whats up"
        "|How do you do?|are you ok?|How do you feel?"
    ),
    READY: (
        "Can you read a text for me?|Can you summarize a text?|Can you summarize something for me?|I have a text "
        "for you|I want to give you a text.|"
        "Can I give you a text?|Could you read something?|Will you read my notes?|Can you answer questions about a "
        "text?|I have a document.|"
        "Can you help me with a text?|Can you make a summary?|I need a summary|please read something for me"
    ),
}
_WORLD = (
    "What is the capital of {city_land}?|Who wrote {title}?|Who is {person}?|When was {person} born?|What is {n} "
    "times {n2}?|What is {n} + {n2}?|"
    "Tell me a joke|Write a poem about {thing}.|Write a story about a {thing}|How do I cook {thing}?|What is the "
    "weather in {city}?|What time is it?|"
    "What day is today?|Who is the president of {city_land}?|How tall is {thing}?|How far is it from {city} to "
    "{city2}?|What is a {word}?|"
    "What is the meaning of life?|Translate {thing} into French|How do you say {thing} in Spanish?|Write code that "
    "sorts a list|"
    "Write a Python function for {thing}.|How old is {person}?|What is the population of {city}?|Why is the sky "
    "blue?|How does a {thing} work?|"
    "Who won the {event} in {year}?|When did the {event} start?|What happened in {year}?|Give me a recipe for {thing}|"
    "What is the best {thing}?|Where can I buy a {thing}?|How much does a {thing} cost?|Who invented the {thing}?|"
    "What is the largest {thing}?|"
    "Explain quantum physics|What is machine learning?|What is a neural network?|Do you like {thing}?|Tell me a "
    "story|Sing a song|"
    "What do you think about {thing}?|Recommend a book about {thing}|How many people live in {city}?|What is the "
    "square root of {n}?|"
    "Which is bigger, {n} or {n2}?|Plan a trip to {city}|Tell me about {city}.|Tell me about the history of {thing}|"
    "Is {thing} healthy?|"
    "What is the chemical symbol of {word}?|How long does a {thing} live?|Define {word}.|What does {word} mean?|Can "
    "you play {thing}?|"
    "What is the fastest animal?|Who painted the {word}?|Who discovered {word}?|Name three {thing}s|List five "
    "cities in {city_land}|"
    "Convert {n} miles to kilometres|Is it raining in {city}?|Should I buy a {thing}?|What is {city} famous for?|"
    "Where is {city}?|fix my {thing}|"
    "What language do they speak in {city_land}?|Give me advice about {thing}.|How do I learn {thing}?|What should "
    "I eat today?"
)
_LANDS = (
    "France|Germany|Spain|Italy|Japan|Brazil|Canada|China|India|Egypt|Kenya|Norway|Peru|Poland|Australia|Mexico|Turkey|"
    "Chile|the USA|England"
)
_THINGS = (
    "cats|dogs|love|the sea|rice|soup|football|chess|music|the moon|a tree|bread|pasta|winter|a river|money|birds|space"
    "|history|tea|art|a car"
)


def world_question(rng: Random) -> str:
    """A question that only knowledge of the world answers."""
    thing = rng.choice((pick(rng, _THINGS), rng.choice(words.ITEMS), words.invent(rng)))
    land = pick(rng, _LANDS) if rng.random() < 0.7 else words.invent(rng).capitalize()
    if rng.random() < 0.25:
        return facts.draw(rng).question
    return pick(rng, _WORLD).format(
        city_land=land, title=f"{words.invent(rng).title()} and {words.invent(rng).title()}", person=words.person(rng),
        n=rng.randint(2, 999),
        n2=rng.randint(2, 999), thing=thing, city=words.city(rng), city2=words.city(rng), word=words.invent(rng),
        year=rng.randint(1800, 2029),
        event=f"{words.invent(rng)} {pick(rng, 'war|cup|race|prize')}",
    )  # fmt: skip


def turn(rng: Random) -> tuple[str, str]:
    """One exchange."""
    if rng.random() < 0.42:
        question = world_question(rng)
        return (question.lower() if rng.random() < 0.15 else question), CANNOT
    reply = rng.choices(list(_TALK), (5, 3, 2, 5, 1, 1))[0]
    text = pick(rng, _TALK[reply])
    if rng.random() < 0.2:
        text = rng.choice(
            (text.lower(), text.rstrip("!?.") + rng.choice(("", ".", "!", "?", "...")), text.capitalize())
        )
    return text, reply


def chat(rng: Random, source: Source) -> Messages:
    """One to four exchanges; sometimes a passage to summarize comes between."""
    turns = [turn(rng) for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))]
    if rng.random() < 0.12:
        found = passages.sentences(rng, source, rng.randint(1, 4))
        turns.insert(rng.randint(0, len(turns)), (summarize.ask(rng, " ".join(found)), found[0]))
    messages = system(rng, 0.35)
    for question, answer in turns:
        messages += [message("user", question), message("assistant", answer)]
    return messages
