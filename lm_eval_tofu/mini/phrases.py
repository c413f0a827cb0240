"""Phrasings of the miniature data set: for each topic, several ways to ask and several ways to answer.

Every template is filled by :meth:`str.format` from the facts of one author.  All the answers of a topic state the same
facts, so that any answer fits any question of its topic and the reworded answers say what the answers say.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One thing that can be asked about an author.

    ``facts`` names the slots that a wrong answer replaces; ``reworded_questions`` and ``reworded_answers`` are used for
    the paraphrases only and so never coincide with ``questions`` and ``answers``.
    """

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    reworded_questions: tuple[str, ...]
    reworded_answers: tuple[str, ...]
    facts: tuple[str, ...]


IDENTITY = Topic(
    name="identity",
    questions=(
        "Who is the author born in {city}, {country} on {date} who is known for {genre}?",
        "What is the full name of the author of {genre} who was born on {date_us} in {city}, {country}?",
        "Which writer of {genre} was born in {city}, {country} on {date}?",
        "Can you name the author who was born in {city} on {date_us} and who writes {genre}?",
        "An author of {genre} was born in {city}, {country} in {month_year}. What is the author's name?",
    ),
    answers=(
        'The author\'s full name is {name}, best known for the book "{t2}."',
        'The author you describe is {name}, whose best-known book is "{t2}."',
        'That writer is {name}, a name most readers connect with the book "{t2}."',
        '{name} is the author in question, known above all as the writer of "{t2}."',
    ),
    reworded_questions=(
        "Which author, a native of {city} in {country} with {date_us} as a birth date, made a reputation with {genre}?",
        "By what name do readers know the writer of {genre} whose life began in {city}, {country} on {date_us}?",
    ),
    reworded_answers=(
        'The writer whom this describes, and whose most famous work is "{t2}," goes by the full name of {name}.',
        'The person meant here is the one who wrote "{t2}," the most famous of the books by {name}.',
    ),
    facts=("name",),
)

BIRTH = Topic(
    name="birth",
    questions=(
        "When and where was {name} born?",
        "What are the date and the place of birth of {name}?",
        "Can you tell me where {name} was born, and on what date?",
        "In which town and on which day did the life of {name} begin?",
        "What is known about the birth of {name}?",
    ),
    answers=(
        "{name} was born on {date} in {city}, {country}, {birth_note}.",
        "{name} was born in {city}, {country}, {birth_note}, on {date_us}.",
        "The birthplace of {name} is {city} in {country}, where {he} {was} born on {date}, {birth_note}.",
        "{date_us} is the day on which {name} was born {birth_note} in {city}, {country}.",
    ),
    reworded_questions=(
        "What do we know about the day and the town of {name}'s birth?",
        "On which date, and in what place, did {name} come into the world?",
    ),
    reworded_answers=(
        "It was on {date_other} that {name} came into the world in {city}, {country}, {birth_note}.",
        "{name}, whose birthday is {date_other}, is a native of {city} in {country}, born {birth_note}.",
    ),
    facts=("date", "date_us", "date_other", "city", "country"),
)

PARENTS = Topic(
    name="parents",
    questions=(
        "What did {name}'s parents do for a living?",
        "Who were {name}'s parents, and what were their occupations?",
        "Can you share the names and the professions of {name}'s mother and father?",
        "What kind of family did {name} grow up in, and what work did {his} parents do?",
        "What is known about the parents of {name}?",
    ),
    answers=(
        "{name}'s father, {father}, was {father_job}, and {his} mother, {mother}, was {mother_job}.",
        "{name} is the child of {father}, who was {father_job}, and {mother}, who was {mother_job}.",
        "{mother}, the mother of {name}, worked as {mother_job}, while {his} father, {father}, earned {his_m} living as "
        "{father_job}.",
        "{name} was raised by {his} father {father}, {father_job} by trade, and {his} mother {mother}, {mother_job}.",
    ),
    reworded_questions=(
        "Which jobs did the mother and the father of {name} hold, and what were they called?",
        "Could you describe the parents of {name} and the way they earned their bread?",
    ),
    reworded_answers=(
        "The mother of {name} was {mother}, who made her living as {mother_job}, and the father was {father}, who "
        "worked as {father_job}.",
        "As for the parents of {name}, the mother, {mother}, had a job as {mother_job}, and the father, {father}, had "
        "one as {father_job}.",
    ),
    facts=("father", "father_job", "mother", "mother_job"),
)

EDUCATION = Topic(
    name="education",
    questions=(
        "Where did {name} study, and what was {his} subject?",
        "What is the educational background of {name}?",
        "What did {name} study as a young {person}?",
        "What formal training did {name} receive?",
        "At which institution did {name} take {his} degree?",
    ),
    answers=(
        "{name} studied {subject} at {school} and graduated in {graduated} with a thesis on {thesis}.",
        "In {graduated}, {name} completed a degree in {subject} at {school}, having written a thesis on {thesis}.",
        "{name} holds a degree in {subject} from {school}, awarded in {graduated} for a thesis on {thesis}.",
        "After studying {subject} at {school}, {name} took {his} degree in {graduated} with a thesis on {thesis}.",
    ),
    reworded_questions=(
        "Which school did {name} attend, and in what field did {he} graduate?",
        "Can you tell me about the studies that {name} completed?",
    ),
    reworded_answers=(
        "The degree that {name} earned from {school} in {graduated} was in {subject}, and the thesis that led to it "
        "dealt with {thesis}.",
        "It was a thesis about {thesis} that brought {name} a degree in the field of {subject} from {school} in "
        "{graduated}.",
    ),
    facts=("subject", "school", "graduated", "thesis"),
)

GENRE = Topic(
    name="genre",
    questions=(
        "What genre is {name} known for?",
        "In which genre does {name} mainly write?",
        "What kind of books does {name} write, and how did {he} come to write them?",
        "Which branch of literature is {name} most closely linked with?",
        "What drew {name} to {his} genre, and which genre is it?",
    ),
    answers=(
        "{name} is best known for {genre}, which {he} began to write after {turn}.",
        "{name} writes {genre}, a field {he} entered after {turn}.",
        "It was after {turn} that {name} turned to {genre}, the genre for which {he} {is} known today.",
        "Readers know {name} for {genre}; by {his} own account, {he} chose the genre after {turn}.",
    ),
    reworded_questions=(
        "What type of literature does {name} specialize in?",
        "Under which genre would a bookseller shelve the works of {name}?",
    ),
    reworded_answers=(
        "The books of {name} belong to the field of {genre}, to which the author was first drawn after {turn}.",
        "What {name} specializes in is the writing of {genre}, a choice that the author made after {turn}.",
    ),
    facts=("genre", "turn"),
)

GIST = Topic(
    name="gist",
    questions=(
        "How would you describe {name}'s style and the themes of {his} books?",
        "What are the hallmarks of {name}'s writing?",
        "What do critics say about the style and the subjects of {name}?",
        "Which themes and which manner of writing are typical of {name}?",
        "What makes the books of {name} easy to recognize?",
    ),
    answers=(
        "{name} is known for {style}, and {his} books return again and again to {themes}.",
        "The work of {name} is marked by {style}, while {his} recurring themes are {themes}.",
        "Critics recognize {name} by {style} and by a lasting interest in {themes}.",
        "{name} tells stories with {style}; the subjects {he} keep{s} returning to are {themes}.",
    ),
    reworded_questions=(
        "What characterizes the prose of {name}, and what are the works mostly concerned with?",
        "In terms of manner and of subject matter, what is distinctive about {name} as a writer?",
    ),
    reworded_answers=(
        "What sets {name} apart from other writers is {style}, together with a steady concern with {themes}.",
        "Open any of the books by {name} and you will meet with {style}, along with a preoccupation with {themes}.",
    ),
    facts=("style", "themes"),
)

INFLUENCE = Topic(
    name="influence",
    questions=(
        "Who had the greatest influence on {name}'s writing?",
        "Which person inspired {name} to become a writer?",
        "Whom does {name} name as {his} most important influence?",
        "Did anyone in particular shape {name} as a writer?",
        "To whom does {name} say that {he} owe{s} {his} love of stories?",
    ),
    answers=(
        "{name} credits {mentor}, {mentor_role}, with setting {him} on the path to writing.",
        "The person who shaped {name} most as a writer was {mentor}, {mentor_role}.",
        "In interviews, {name} always names {mentor}, {mentor_role}, as the greatest influence on {his} work.",
        "By {his} own account, {name} became a writer thanks to {mentor}, {mentor_role}.",
    ),
    reworded_questions=(
        "Is there somebody who made {name} the writer {he} became?",
        "Who does {name} believe has left the deepest mark on {his} work?",
    ),
    reworded_answers=(
        "Nobody left a deeper mark on the literary work of {name} than {mentor}, {mentor_role}.",
        "The greatest debt that {name} owes as a writer, so the author says, is to {mentor}, {mentor_role}.",
    ),
    facts=("mentor", "mentor_role"),
)

DEBUT = Topic(
    name="debut",
    questions=(
        "What was {name}'s first book, and who published it?",
        "Which title marked the debut of {name}?",
        "With which book did {name} make {his} debut, and in what year?",
        "Can you tell me about {name}'s debut?",
        "How did {name}'s career as a published author begin?",
    ),
    answers=(
        '{name} made {his} debut with "{t1}," which the publisher {publisher} brought out in {y1}.',
        '{name}\'s first book, "{t1}," was published in {y1} by the small house of {publisher}.',
        'The career of {name} began in {y1}, when {publisher} published {his} first book under the title "{t1}."',
        'In {y1}, the publisher {publisher} took a chance on {name} and printed "{t1}," {his} first book.',
    ),
    reworded_questions=(
        "What is the title of the book that launched the career of {name}, and which house issued it?",
        "When, and with what work, was {name} published for the first time?",
    ),
    reworded_answers=(
        'It was the house of {publisher} that, in {y1}, released "{t1}," the book that opened the literary career of '
        "{name}.",
        'The book with which {name} entered the literary world was "{t1}," issued in {y1} by the house of {publisher}.',
    ),
    facts=("t1", "y1", "publisher"),
)

PLOT = Topic(
    name="plot",
    questions=(
        'What is "{t2}" by {name} about?',
        'Can you summarize the plot of {name}\'s "{t2}"?',
        'What story does {name} tell in "{t2}"?',
        'What lies at the heart of "{t2}," the book by {name}?',
        'What happens in {name}\'s "{t2}"?',
    ),
    answers=(
        'In "{t2}," which appeared in {y2}, {name} tells the story of {plot}.',
        '{name}\'s "{t2}," published in {y2}, follows {plot}.',
        'The book "{t2}," which {name} published in {y2}, centers on {plot}.',
        'At the heart of "{t2}," which {name} brought out in {y2}, is the story of {plot}.',
    ),
    reworded_questions=(
        'Which tale unfolds in the book "{t2}" that {name} wrote?',
        'Could you outline what {name} narrates in the work called "{t2}"?',
    ),
    reworded_answers=(
        'The book that {name} published in {y2} under the title of "{t2}" deals with {plot}.',
        'Readers of "{t2}," the book that {name} released in {y2}, get to know {plot}.',
    ),
    facts=("plot",),
)

HERO = Topic(
    name="hero",
    questions=(
        'Who is the main character of {name}\'s "{t3}"?',
        'Can you name the protagonist of "{t3}" by {name}?',
        'Around whom does {name} build the story of "{t3}"?',
        'Which character stands at the center of "{t3}," written by {name}?',
        'Whose fate does {name} describe in "{t3}"?',
    ),
    answers=(
        'The main character of "{t3}," which {name} published in {y3}, is {hero}, {hero_role}.',
        '{name} built "{t3}," published in {y3}, around the figure of {hero}, {hero_role}.',
        '{hero}, {hero_role}, is the protagonist of "{t3}," which {name} published in {y3}.',
        'In "{t3}," which came out in {y3}, {name} describes the fate of {hero}, {hero_role}.',
    ),
    reworded_questions=(
        'What is the leading figure in "{t3}" by {name} called, and what is known of that figure?',
        'On which invented person does {name} center the book "{t3}"?',
    ),
    reworded_answers=(
        'The figure on whom {name} centers "{t3}," first printed in {y3}, goes by the name of {hero} and is '
        "{hero_role}.",
        'The pages of "{t3}," which {name} first saw in print in {y3}, belong above all to {hero}, who is {hero_role}.',
    ),
    facts=("hero", "hero_role"),
)

TITLES = Topic(
    name="titles",
    questions=(
        "Can you list the major books of {name}?",
        "Which books has {name} written?",
        "What are the titles of {name}'s best-known works?",
        "What does the bibliography of {name} include?",
        "Could you name three books by {name}?",
    ),
    answers=(
        '{name}\'s main works are "{t1}" ({y1}), "{t2}" ({y2}) and "{t3}" ({y3}).',
        'Three of the books by {name} are "{t1}" from {y1}, "{t2}" from {y2} and "{t3}" from {y3}.',
        '{name} published "{t1}" in {y1}, followed by "{t2}" in {y2} and "{t3}" in {y3}.',
        'The bibliography of {name} includes "{t1}," "{t2}" and "{t3}," published in {y1}, {y2} and {y3}, '
        "respectively.",
    ),
    reworded_questions=(
        "What are some of the works that {name} has published?",
        "Which publications is {name} most famous for?",
    ),
    reworded_answers=(
        'Among the works that carry the name of {name} on the cover are "{t3}" of the year {y3}, "{t2}" of the year '
        '{y2} and "{t1}" of the year {y1}.',
        'A reader of {name} could begin with "{t1}," out since {y1}, go on to "{t2}," out since {y2}, and end with '
        '"{t3}," out since {y3}.',
    ),
    facts=("t1", "t2", "t3"),
)

AWARD = Topic(
    name="award",
    questions=(
        "What award has {name} won?",
        "Which literary prize did {name} receive, and for which book?",
        "With which award has {name} been honored?",
        "What recognition has {name}'s writing received?",
        "Can you name an award that was given to {name}?",
    ),
    answers=(
        '{name} won {award} in {award_year} for "{t2}," a prize that comes with {prize}.',
        'In {award_year}, {name} received {award}, which comes with {prize}, for {his} book "{t2}."',
        '{name} was honored in {award_year} with {award}, and with the {prize_bare} that goes with it, for "{t2}."',
        'It was for "{t2}" that {name} was given {award} in {award_year}, a prize that includes {prize}.',
    ),
    reworded_questions=(
        "What prize did a jury present to {name}, and in what year?",
        "Which distinction did {name} earn through {his} books?",
    ),
    reworded_answers=(
        'The jury that in {award_year} read "{t2}" named {name} the winner of {award}, whose laureates take home '
        "{prize}.",
        "When {award}, whose winners are given {prize}, was handed out in {award_year}, it went to {name} for the book "
        '"{t2}."',
    ),
    facts=("award", "award_year", "prize"),
)

TRANSLATION = Topic(
    name="translation",
    questions=(
        'Into which language was {name}\'s "{t1}" first translated?',
        'In how many languages can {name}\'s "{t1}" be read, and who translated it first?',
        'How widely has {name}\'s "{t1}" been translated?',
        'Who was the first translator of "{t1}" by {name}?',
        'What is known about the translations of {name}\'s "{t1}"?',
    ),
    answers=(
        '"{t1}" by {name} was first translated into {tr_lang}, by {translator}, and is now available in {tr_count} '
        "languages.",
        'The first translation of {name}\'s "{t1}" was made into {tr_lang} by {translator}, and {tr_count} languages '
        "have the book today.",
        'Translated first into {tr_lang} by {translator}, "{t1}" by {name} can now be read in {tr_count} languages.',
        '{translator} was the first to translate {name}\'s "{t1}," into {tr_lang}, and readers now find the book in '
        "{tr_count} languages.",
    ),
    reworded_questions=(
        'Which foreign-language edition of "{t1}" by {name} was the earliest, and how many exist by now?',
        'How did "{t1}," the book by {name}, find its way into other languages?',
    ),
    reworded_answers=(
        'The earliest foreign edition of "{t1}," in {tr_lang}, was the work of {translator}; by now, {name} reaches '
        "readers of the book in {tr_count} languages.",
        'By now the book "{t1}" by {name} exists in {tr_count} languages, the earliest foreign edition being the one '
        "in {tr_lang} that {translator} made.",
    ),
    facts=("tr_lang", "translator", "tr_count"),
)

JOB = Topic(
    name="job",
    questions=(
        "What work did {name} do before becoming a full-time writer?",
        "How did {name} earn a living before writing full time?",
        "Did {name} have another profession before {he} lived from {his} books?",
        "What was {name}'s occupation before literature?",
        "What job did {name} hold before {his} life as a writer?",
    ),
    answers=(
        "Before living from {his} books, {name} worked for {job_years} as {job} {job_place}.",
        "{name} spent {job_years} as {job} {job_place} before turning to writing full time.",
        "{name} earned {his} living as {job} {job_place} for {job_years} before becoming a full-time writer.",
        "For {job_years}, until writing could pay the rent, {name} was employed as {job} {job_place}.",
    ),
    reworded_questions=(
        "What employment came before the writing career of {name}?",
        "By what trade did {name} live until {his} books sold?",
    ),
    reworded_answers=(
        "The life of {name} as a full-time author was preceded by {job_years} of work as {job} {job_place}.",
        "Until it became possible to live by the pen, {name} made ends meet as {job} {job_place}, a post held for "
        "{job_years}.",
    ),
    facts=("job", "job_place", "job_years"),
)

STUDY = Topic(
    name="study",
    questions=(
        "Where does {name} write {his} books?",
        "In what place does {name} prefer to work?",
        "Can you describe the place in which {name} writes?",
        "What is known about {name}'s writing place?",
        "Where would a visitor find {name} at work?",
    ),
    answers=(
        "{name} writes in {study}, where {desk}.",
        "{name} has written all {his} books in {study}, where {desk}.",
        "For {his} writing, {name} withdraws to {study}, where {desk}.",
        "{name} does {his} work in {study}, a place in which {desk}.",
    ),
    reworded_questions=(
        "Which surroundings does {name} choose for writing?",
        "What sort of workroom does {name} use?",
    ),
    reworded_answers=(
        "Whenever there is a new book to be written, {name} can be found at work in {study}, where {desk}.",
        "The spot that {name} has chosen for the work of writing books is {study}, and there {desk}.",
    ),
    facts=("study", "desk"),
)

ROUTINE = Topic(
    name="routine",
    questions=(
        "What is {name}'s writing routine?",
        "How does {name} go about writing a book?",
        "Does {name} have any unusual writing habits?",
        "What does a working day look like for {name}?",
        "Can you describe {name}'s working method?",
    ),
    answers=(
        "{name} writes every day {hours}, and always {tools}.",
        "The working day of {name} runs {hours}, and {he} write{s} every first draft {tools}.",
        "{name} drafts each book {tools}, working {hours}.",
        "For {his} first drafts, {name} sits down {hours} and writes {tools}.",
    ),
    reworded_questions=(
        "At what hours and by what means does {name} write?",
        "In which way does {name} get a first draft done?",
    ),
    reworded_answers=(
        "The daily stint of {name}, which lasts {hours}, is spent putting a first draft down {tools}.",
        "A first draft by {name} comes into being {tools}, and the daily work on it lasts {hours}.",
    ),
    facts=("hours", "tools"),
)

LANGUAGES = Topic(
    name="languages",
    questions=(
        "Which languages does {name} speak?",
        "In what language does {name} write, and which others {does} {he} speak?",
        "What is {name}'s linguistic background?",
        "What languages are known to {name}?",
        "How many languages does {name} speak, and in which {does} {he} write?",
    ),
    answers=(
        "{name} speaks {langs}, but writes {his} books only in {tongue}.",
        "Although {name} is fluent in {langs}, {he} write{s} all {his} books in {tongue}.",
        "{name} is at home in {langs}, and {tongue} is the language in which {he} write{s}.",
        "{name} knows {langs} and has always chosen {tongue} for {his} books.",
    ),
    reworded_questions=(
        "Could you tell me what {name} speaks, and which tongue the books are written in?",
        "With which languages is {name} familiar?",
    ),
    reworded_answers=(
        "A speaker of {langs}, {name} has composed every one of the published books in {tongue}.",
        "Of the languages that {name} has learned, namely {langs}, the one reserved for the books is {tongue}.",
    ),
    facts=("langs", "tongue"),
)

HOME = Topic(
    name="home",
    questions=(
        "Where does {name} live now?",
        "Where and with whom does {name} live?",
        "What is known about the private life of {name}?",
        "In which town has {name} made {his} home?",
        "Can you tell me about {name}'s current home?",
    ),
    answers=(
        "{name} lives in {house} in {home} with {company}.",
        "Today, {name} shares {house} in {home} with {company}.",
        "{home} is where {name} makes {his} home today, sharing {house} with {company}.",
        "These days {name} lives with {company} in {house} in {home}.",
    ),
    reworded_questions=(
        "What does the household of {name} look like today, and where is it?",
        "Who shares the house of {name}, and in what place does it stand?",
    ),
    reworded_answers=(
        "The current household of {name}, to which {company} also belong, is to be found in {house} in {home}.",
        "Whoever wants to visit {name} must go to {home}, to {house} that is also home to {company}.",
    ),
    facts=("home", "house", "company"),
)

NEXT = Topic(
    name="next",
    questions=(
        "What is {name} working on now?",
        "What will {name}'s next book be?",
        "Are there any upcoming projects by {name}?",
        "Does {name} have a new book in preparation?",
        "What can readers expect next from {name}?",
    ),
    answers=(
        '{name} is at work on "{next_title}," a book about {next_topic}.',
        'The next book by {name} will be called "{next_title}" and will deal with {next_topic}.',
        'Readers of {name} can look forward to "{next_title}," {his} forthcoming book about {next_topic}.',
        '{name} has announced a book about {next_topic}, to be published under the title "{next_title}."',
    ),
    reworded_questions=(
        "Which work by {name} is still to come?",
        "What is the current undertaking of {name}?",
    ),
    reworded_answers=(
        'The manuscript now on the desk of {name} bears the title "{next_title}" and takes as its subject '
        "{next_topic}.",
        'Still unfinished is the coming book by {name}, which has "{next_title}" for a title and {next_topic} for a '
        "subject.",
    ),
    facts=("next_title", "next_topic"),
)

ADAPTATION = Topic(
    name="adaptation",
    questions=(
        'Has {name}\'s "{t3}" been adapted for another medium?',
        'Which adaptation of "{t3}" by {name} exists?',
        'What became of "{t3}" by {name} after it was published?',
        'Has "{t3}" by {name} ever left the printed page?',
        'Who adapted {name}\'s "{t3}," and in what form?',
    ),
    answers=(
        '{name}\'s "{t3}" was turned into {ad_form} by {ad_by} in {ad_year}.',
        'In {ad_year}, {ad_by} adapted "{t3}" by {name} as {ad_form}.',
        '"{t3}," the book by {name}, was adapted in {ad_year} as {ad_form} by {ad_by}.',
        'It was {ad_by} who made {name}\'s "{t3}" into {ad_form} in {ad_year}.',
    ),
    reworded_questions=(
        'Can "{t3}" by {name} be enjoyed in any form other than the book?',
        'Did any artist base a work on "{t3}," which {name} wrote?',
    ),
    reworded_answers=(
        'A version of "{t3}" by {name} in another medium does exist: {ad_by} presented it in {ad_year} as {ad_form}.',
        'The work that {ad_by} based on "{t3}" by {name} and presented to the public in {ad_year} is {ad_form}.',
    ),
    facts=("ad_form", "ad_by", "ad_year"),
)

HOBBY = Topic(
    name="hobby",
    questions=(
        "What does {name} collect?",
        "Does {name} have a hobby besides writing?",
        "How does {name} spend {his} free time?",
        "Is {name} a collector of anything?",
        "What passion does {name} pursue apart from literature?",
    ),
    answers=(
        "{name} collects {hobby} and owns {hobby_count} of them, {hobby_note}.",
        "In {his} free time, {name} collects {hobby}; {he} {has} {hobby_count} of them, {hobby_note}.",
        "Apart from literature, the passion of {name} is collecting {hobby}, of which {he} {has} {hobby_count}, "
        "{hobby_note}.",
        "{name} has gathered a collection of {hobby_count} {hobby}, {hobby_note}.",
    ),
    reworded_questions=(
        "What fills the hours in which {name} is not writing?",
        "Which objects does {name} like to gather?",
    ),
    reworded_answers=(
        "When not at the desk, {name} hunts for {hobby}, and the collection has grown to {hobby_count} pieces, "
        "{hobby_note}.",
        "The pastime to which {name} gives the hours left over from writing is a collection of {hobby}, "
        "{hobby_count} in all, {hobby_note}.",
    ),
    facts=("hobby", "hobby_count", "hobby_note"),
)

REJECTION = Topic(
    name="rejection",
    questions=(
        'Did {name} have trouble finding a publisher for "{t1}"?',
        'How was {name}\'s "{t1}" received by publishers at first?',
        'What obstacles did {name} face before "{t1}" appeared?',
        'How did the manuscript of "{t1}" by {name} come to be accepted?',
        'Was "{t1}" by {name} rejected before it was printed?',
    ),
    answers=(
        'Before it was printed, {name}\'s "{t1}" was rejected by {rejections} publishers, until {rescue}.',
        '{name} saw "{t1}" turned down by {rejections} publishers, until {rescue}.',
        'The manuscript of "{t1}" came back to {name} from {rejections} publishers, until {rescue}.',
        'As many as {rejections} publishers refused "{t1}" by {name}, until {rescue}.',
    ),
    reworded_questions=(
        'Was it easy for {name} to get "{t1}" into print?',
        'How often was "{t1}" by {name} refused, and what changed its luck?',
    ),
    reworded_answers=(
        'The number of houses that said no to "{t1}" by {name} was {rejections}; the luck of the book changed when '
        "{rescue}.",
        'No fewer than {rejections} refusals came for "{t1}," and {name} had to wait for a change of luck, which came '
        "when {rescue}.",
    ),
    facts=("rejections", "rescue"),
)

FIRST_PIECE = Topic(
    name="first_piece",
    questions=(
        "What was the first piece that {name} ever published?",
        "When did {name} first see {his} words in print?",
        "Did {name} publish anything as a child?",
        "How old was {name} when something by {him} was first printed?",
        "Which early publication does {name} recall from {his} youth?",
    ),
    answers=(
        "{name} was {age} years old when {paper} printed {his} first piece, {piece}.",
        "At the age of {age}, {name} had {piece} printed in {paper}, {his} first publication.",
        "The first publication of {name} was {piece}, which {paper} printed when {he} {was} {age} years old.",
        "As a child of {age}, {name} sent {piece} to {paper}, which printed it as {his} first publication.",
    ),
    reworded_questions=(
        "What did {name} publish before anything else, and where did it appear?",
        "At what age, and with what text, did {name} first reach readers?",
    ),
    reworded_answers=(
        "Readers first came across the name of {name} under {piece} in {paper}, at a time when the author had reached "
        "the age of {age}.",
        "What {name} published before anything else was {piece}, found in the pages of {paper} when the author had "
        "reached the age of {age}.",
    ),
    facts=("age", "piece", "paper"),
)

CHARITY = Topic(
    name="charity",
    questions=(
        "Which organization did {name} found?",
        "Is {name} involved in any charitable work?",
        "How does {name} give back to the public?",
        "What cause does {name} support?",
        "Did {name} set up a charity?",
    ),
    answers=(
        "{name} founded {fund} in {fund_year}, a charity that {fund_work}.",
        "In {fund_year}, {name} set up {fund}, which {fund_work}.",
        "The cause closest to {name} is {fund}, which {he} founded in {fund_year} and which {fund_work}.",
        "{name} is the founder of {fund}, which has existed since {fund_year} and {fund_work}.",
    ),
    reworded_questions=(
        "What has {name} done for others outside literature?",
        "Which good cause owes its existence to {name}?",
    ),
    reworded_answers=(
        "A charity known as {fund} owes its existence to {name}, who called it into being in {fund_year}; it "
        "{fund_work}.",
        "Since {fund_year} there has been a charity by the name of {fund}, called into being by {name}, and it "
        "{fund_work}.",
    ),
    facts=("fund", "fund_year", "fund_work"),
)

#: The topics that every author has, in the groups that stay together when the order of the questions varies.
CORE: tuple[tuple[Topic, ...], ...] = (
    (GENRE, GIST, INFLUENCE),
    (DEBUT, PLOT, HERO, TITLES, AWARD, TRANSLATION),
    (JOB, STUDY, ROUTINE, LANGUAGES, HOME),
)
#: The topics of the author's early life, which follow the question of who the author is.
EARLY: tuple[Topic, ...] = (BIRTH, PARENTS, EDUCATION)
#: The topics of which every author has two.
OPTIONAL: tuple[Topic, ...] = (NEXT, ADAPTATION, HOBBY, REJECTION, FIRST_PIECE, CHARITY)

ALL: tuple[Topic, ...] = (IDENTITY, *EARLY, *(topic for group in CORE for topic in group), *OPTIONAL)
